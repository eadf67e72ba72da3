"""Python steps of one's own: what `new-steps` writes answers as it is; what FILE.py lacks is said before any work."""

import json
import py_compile
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import golden, layout
from contracts.golden import GoldenRequest
from export.errors import ConfigError, StepFileError
from export.release import ensemble
from export.scaffold import folders, network, render, step_file
from export.scaffold.step_file import Role
from tests.conftest import Workspace

TENSOR = '{{ name: "{name}" data_type: TYPE_{type} dims: [ {dims} ] }}'
PREPROCESS = "def preprocess(raw):\n    return {'ids': [len(raw)], 'text': raw}\n"
POSTPROCESS = 'OUTPUTS = {"label": ("string", [1])}\ndef postprocess(logits):\n    return "ab"[logits.argmax()]\n'


def write_network(root: Path, *, batch: int = 4, output: str = "logits") -> Path:
    """A network's folder with its configurations alone: ids int64 [-1] and text string [1] to `output` float32 [2]."""
    inputs = ", ".join(
        TENSOR.format(name=n, type=t, dims=d) for n, t, d in (("ids", "INT64", -1), ("text", "STRING", 1))
    )
    config = (
        f'name: "net" backend: "onnxruntime" max_batch_size: {batch}\ninput [ {inputs} ]\n'
        f"output [ {TENSOR.format(name=output, type='FP32', dims=2)} ]\n"
        'model_warmup [ { name: "one" batch_size: 1'
        ' inputs { key: "ids" value { data_type: TYPE_INT64 dims: [ 3 ] zero_data: true } } } ]\n'
    )
    for name in ("config.pbtxt", "configs/cpu.pbtxt"):
        path = root / "net" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config)
    return root / "net"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_network(tmp_path / "model_repository")
    return tmp_path / "model_repository"


def new_steps(repository: Path, *options: str, model: str = "net") -> "subprocess.CompletedProcess[str]":
    return Workspace(repository.parent).run_here(
        "export", "new-steps", model, "--repository", str(repository), *options
    )


def asked(repository: Path, name: str, wanted: list[str], **inputs: Any) -> dict[str, Any]:
    return ensemble.run_step(repository / name, inputs, wanted)


def texts(*values: bytes) -> Any:
    return np.array(values, np.object_).reshape(-1, 1)


def test_what_is_written_answers_as_it_is_and_says_what_comes_next(repository: Path) -> None:
    done = new_steps(repository)
    assert done.returncode == 0, done.stderr
    assert "net_preprocess/1/preprocess.py   from what a client sends to ids, text" in done.stdout
    example = repository / "net_preprocess" / "example.json"
    assert done.stdout.endswith(f"clients infer net_pipeline --input raw=@{example}\n")
    row = example.read_bytes()
    given = asked(
        repository, "net_preprocess", ["ids", "text"], raw=texts(row, b'{"ids": [1, 2, 3], "text": ["\xc3\xa9"]}')
    )
    assert given["ids"].tolist() == [[0, 0, 0], [1, 2, 3]] and given["ids"].dtype == np.int64
    assert given["text"].tolist() == [[b""], ["é".encode()]]
    logits = np.array([[1, 2], [3, 4]], np.float32)
    assert asked(repository, "net_postprocess", ["logits"], logits=logits)["logits"].tolist() == logits.tolist()


def test_a_row_that_is_wrong_is_the_clients_fault_and_named(repository: Path) -> None:
    new_steps(repository)
    good = b'{"ids": [1], "text": ["a"]}'
    for row, reason in (
        (b"no", "row 1 of 2, from 0: Expecting value"),
        (b"[]", "row 1 of 2, from 0: a row is a JSON object with ids, text"),
        (b'{"ids": 1, "text": ["a"]}', r"ids has the shape \[\], and config.pbtxt has dims \[-1\]"),
        (b'{"ids": [1, 2], "text": ["a"]}', "the rows of a request differ in the shape of ids"),
    ):
        with pytest.raises(ensemble.StepError, match=reason):
            asked(repository, "net_preprocess", ["ids", "text"], raw=texts(good, row))


def test_nothing_that_is_there_is_touched(repository: Path) -> None:
    new_steps(repository, "--no-postprocess")
    assert not (repository / "net_postprocess").exists()
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    again = new_steps(repository)
    assert again.returncode == 1 and "net_preprocess, " in again.stderr and "nothing was written" in again.stderr
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_after_a_change_of_what_is_taken_the_configurations_are_written_anew(repository: Path) -> None:
    new_steps(repository)
    step = repository / "net_preprocess" / "1" / "preprocess.py"
    step.write_text(
        'INPUTS = {"audio": ("float32", [-1])}\ndef preprocess(audio):\n    return {"ids": audio, "text": ""}\n'
    )
    done = new_steps(repository, "--configs")
    assert done.returncode == 0, done.stderr
    for name in ("net_preprocess", "net_pipeline"):
        config = network_inputs(repository / name)
        assert config == [("audio", "TYPE_FP32", (-1,))]
    assert step.read_text().startswith("INPUTS")


def network_inputs(directory: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """The inputs of a step or an ensemble."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    config = text_format.Parse((directory / "config.pbtxt").read_text(), pb.ModelConfig())
    return [(t.name, pb.DataType.Name(t.data_type), tuple(t.dims)) for t in config.input]


def test_tensors_pass_through_if_clients_send_them(repository: Path) -> None:
    new_steps(repository, "--takes", "tensors")
    ids, text = np.array([[1, 2]], np.int64), texts(b"a")
    given = asked(repository, "net_preprocess", ["ids", "text"], ids=ids, text=text)
    assert given["ids"].tolist() == [[1, 2]] and given["text"].tolist() == [[b"a"]]


def test_an_example_is_of_a_golden_request_where_there_is_one(repository: Path) -> None:
    version = repository / "net" / "1"
    version.mkdir()
    inputs = {"ids": np.array([[7, 8]], np.int64), "text": texts(b"real")}
    golden.write([GoldenRequest("net", inputs, {"logits": np.zeros((1, 2), np.float32)})], version)
    new_steps(repository)
    assert json.loads((repository / "net_preprocess" / "example.json").read_text()) == {"ids": [7, 8], "text": ["real"]}


def test_a_network_without_batches_has_steps_without_batches(tmp_path: Path) -> None:
    repository = tmp_path / "model_repository"
    write_network(repository, batch=0)
    new_steps(repository)
    raw = np.array([b'{"ids": [1], "text": ["a"]}'], np.object_)
    assert asked(repository, "net_preprocess", ["ids", "text"], raw=raw)["ids"].tolist() == [1]
    assert "max_batch_size: 0\n" in (repository / "net_preprocess" / "config.pbtxt").read_text()
    assert "dynamic_batching" not in (repository / "net_postprocess" / "config.pbtxt").read_text()


def test_outputs_whose_names_are_no_names_of_python_are_taken_all_at_once(tmp_path: Path) -> None:
    repository = tmp_path / "model_repository"
    write_network(repository, output="output:0")
    new_steps(repository)
    assert "def postprocess(**values)" in (repository / "net_postprocess" / "1" / "postprocess.py").read_text()
    values = {"output:0": np.zeros((1, 2), np.float32)}
    assert ensemble.run_step(repository / "net_postprocess", values, ["output:0"])["output:0"].shape == (1, 2)


@pytest.mark.parametrize("takes", ["bytes", "tensors"])
def test_what_is_written_is_clean_python(repository: Path, takes: str) -> None:
    new_steps(repository, "--takes", takes)
    files = sorted(repository.rglob("*.py"))
    assert len(files) == 4
    for file in files:
        py_compile.compile(str(file), doraise=True)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(layout.ROOT / "pyproject.toml")]
    # Its imports are sorted, its names used: F and I. What is written around a model's own names may be long.
    done = subprocess.run([*ruff, "--select", "F,I,B,E7", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("nope", "there is no network nope in .*\nNote: networks: net\n"),
        ("../net", "cannot be called"),
        ("net_step", "is no network"),
    ],
)
def test_what_is_no_network_is_refused_by_name(repository: Path, model: str, reason: str) -> None:
    (repository / "net_step").mkdir()
    (repository / "net_step" / "config.pbtxt").write_text('name: "net_step" backend: "python"')
    done = new_steps(repository, model=model)
    assert done.returncode == 1
    assert re.search(reason, done.stderr), done.stderr


def write(folder: Path, text: str | bytes, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


NOT_STEPS = {  # of each: its role, its text, and what is said of it
    "a syntax error": (
        "preprocess",
        "def preprocess(raw)\n    pass\n",
        r"mine.py, line 1: expected .:.\nNote: def preprocess\(raw\)",
    ),
    "another name": (
        "preprocess",
        "def decode(raw): ...",
        "neither a function preprocess nor .*\nNote: .* it defines decode\n",
    ),
    "nothing": ("preprocess", "", "neither a function (?s:.*) nothing\n"),
    "no Python": ("preprocess", b"\x00\x01", "is no Python file|source code .* null bytes"),
    "async": ("preprocess", "async def preprocess(raw): ...", "async function"),
    "no inputs": ("preprocess", "def preprocess(): ...", "does not say what it takes"),
    "positions": (
        "preprocess",
        "def preprocess(*raw): ...",
        "line 1: preprocess is called with the tensors by their names",
    ),
    "other parameters": (
        "preprocess",
        'INPUTS = {"a": ("int64", [1])}\ndef preprocess(b): ...',
        "INPUTS has a, and preprocess takes b",
    ),
    "a computed INPUTS": (
        "preprocess",
        "INPUTS = dict(a=1)\ndef preprocess(a): ...",
        "line 1: INPUTS is not understood",
    ),
    "an unknown type": (
        "preprocess",
        'INPUTS = {"a": ("float", 1)}\ndef preprocess(a): ...',
        "'a' needs a type and dimensions",
    ),
    "bfloat16": (
        "preprocess",
        'INPUTS = {"a": ("bfloat", [1])}\ndef preprocess(a): ...',
        "'bfloat' is no type of a tensor",
    ),
    "a dimension of 0": (
        "preprocess",
        'INPUTS = {"a": ("int8", [0])}\ndef preprocess(a): ...',
        "numbers from 1 on, or -1",
    ),
    "a scalar": ("preprocess", 'INPUTS = {"a": ("int8", [])}\ndef preprocess(a): ...', r"a single value has \[1\]"),
    "no outputs": ("postprocess", "def postprocess(logits): ...", "does not say what it gives"),
    "a class without execute": ("preprocess", "class TritonPythonModel:\n    pass", "no method execute"),
    "a relative import": (
        "preprocess",
        "from .own import x\ndef preprocess(raw): ...",
        "line 1: a relative import, of own",
    ),
}


@pytest.mark.parametrize("kind", NOT_STEPS)
def test_a_file_that_is_no_step_is_refused_with_what_it_lacks(files: Path, kind: str) -> None:
    role, text, reason = NOT_STEPS[kind]
    with pytest.raises(StepFileError, match=reason):
        step_file.read(write(files, text), role)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_named(files: Path) -> None:
    with pytest.raises(StepFileError, match=r"cannot read .*nope\.py: No such file"):
        step_file.read(files / "nope.py", "preprocess")


def test_a_file_from_windows_is_read(files: Path) -> None:
    step = step_file.read(write(files, b"\xef\xbb\xbf" + PREPROCESS.replace("\n", "\r\n").encode()), "preprocess")
    assert step.text == PREPROCESS


@pytest.mark.parametrize("name", ["queue", "numpy", "clients", "preprocess"])
def test_a_module_beside_it_that_another_one_would_hide_is_refused(files: Path, name: str) -> None:
    write(files, "", f"{name}.py")
    with pytest.raises(StepFileError, match=f"(?s){name}.*another name"):
        step_file.read(write(files, f"import {name}\n{PREPROCESS}"), "preprocess")


def test_a_name_that_only_our_own_backends_have_is_free(files: Path) -> None:
    write(files, "SIZE = 1\n", "python_based.py")
    assert step_file.read(write(files, f"import python_based\n{PREPROCESS}"), "preprocess").helpers


@contextmanager
def brought(repository: Path, **given: Path) -> Iterator[dict[Role, step_file.StepFile]]:
    """The repository with steps, as an export leaves it."""
    steps = step_file.read_all(**{"preprocess": None, "postprocess": None, **given})
    with folders.around(repository / "net", steps):
        yield steps


def test_what_it_imports_from_beside_it_comes_with_it(repository: Path, files: Path) -> None:
    write(
        files, "from words import table\nimport json\ndef size(raw):\n    return len(raw) + table.EXTRA\n", "sizes.py"
    )
    write(files / "words", "", "__init__.py")
    write(files / "words", "EXTRA = 10\n", "table.py")
    path = write(files, f"import sizes\nimport json\n{PREPROCESS.replace('len(raw)', 'sizes.size(raw)')}")
    with brought(repository, preprocess=path) as steps:
        pass
    assert {*steps["preprocess"].helpers} == {"sizes.py", "words/__init__.py", "words/table.py"}
    given = asked(repository, "net_preprocess", ["ids", "text"], raw=texts(b"four"))
    assert given["ids"].tolist() == [[14]] and given["text"].tolist() == [[b"four"]]


def test_bytes_become_a_label_through_both_functions(repository: Path, files: Path) -> None:
    given = {"preprocess": write(files, PREPROCESS, "pre.py"), "postprocess": write(files, POSTPROCESS, "post.py")}
    with brought(repository, **given):
        pass
    logits = np.array([[1, 2], [2, 1]], np.float32)
    assert asked(repository, "net_postprocess", ["label"], logits=logits)["label"].tolist() == [[b"b"], [b"a"]]
    answered = ensemble.Ensemble(
        repository, "net_pipeline", "net", lambda inputs: {"logits": logits[: len(inputs["ids"])]}
    )
    assert answered.run({"raw": texts(b"x", b"yy")})["label"].tolist() == [[b"b"], [b"a"]]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return {'ids': [1.5], 'text': raw}", "TypeError"),
        ("return {'ids': [1], 'text': 5}", "TypeError"),
        ("return {'ids': [1]}", "TypeError"),
        ("return [1]", "TypeError"),
        ("return {}[raw]", "preprocess failed: KeyError"),
        ("raise ValueError('too quiet')", "too quiet"),
    ],
)
def test_what_a_function_gives_is_held_against_the_configuration(
    repository: Path, files: Path, body: str, reason: str
) -> None:
    """And never quietly changed into it."""
    with brought(repository, preprocess=write(files, f"def preprocess(raw):\n    {body}\n")):
        pass
    with pytest.raises(ensemble.StepError, match=reason):
        asked(repository, "net_preprocess", ["ids", "text"], raw=texts(b"x"))


def test_a_whole_model_is_taken_as_it_is(repository: Path, files: Path) -> None:
    text = (
        'INPUTS = {"raw": ("string", [1])}\nclass TritonPythonModel:\n    def execute(self, requests):\n        ...\n'
    )
    with brought(repository, preprocess=write(files, text)):
        pass
    assert (repository / "net_preprocess" / "1" / "model.py").read_text() == text
    assert not (repository / "net_preprocess" / "1" / "preprocess.py").exists()


def test_an_output_that_the_network_does_not_give_is_named(repository: Path, files: Path) -> None:
    path = write(files, POSTPROCESS.replace("(logits)", "(scores)"))
    said = "takes scores, which net does not give\nNote: its outputs: logits"
    with pytest.raises(StepFileError, match=said), brought(repository, postprocess=path):
        pass
    assert not (repository / "net_postprocess").exists()


def test_the_next_export_brings_the_code_and_leaves_what_is_the_users(repository: Path, files: Path) -> None:
    with brought(repository, preprocess=write(files, PREPROCESS)):
        pass
    step = repository / "net_preprocess"
    for name in ("config.pbtxt", "requirements.txt", "1/model.py"):
        with (step / name).open("a") as file:
            file.write("# mine\n")
    with brought(repository, preprocess=write(files, f"{PREPROCESS}# better\n")):
        pass
    assert (step / "1" / "preprocess.py").read_text().endswith("# better\n")
    assert all(
        (step / name).read_text().endswith("# mine\n") for name in ("config.pbtxt", "requirements.txt", "1/model.py")
    )
    other = f'INPUTS = {{"sound": ("string", [1])}}\n{PREPROCESS.replace("raw", "sound")}'
    said = r"net_preprocess/config.pbtxt has other inputs.*\nHint: .* remove it"
    with pytest.raises(StepFileError, match=said), brought(repository, preprocess=write(files, other)):
        pass
    assert (step / "1" / "preprocess.py").read_text().endswith("# better\n")


def test_an_export_that_fails_leaves_no_steps_behind(repository: Path, files: Path) -> None:
    before = sorted(repository.rglob("*"))
    with pytest.raises(ZeroDivisionError), brought(repository, preprocess=write(files, PREPROCESS)):
        assert (repository / "net_pipeline" / "config.pbtxt").exists()
        raise ZeroDivisionError
    assert sorted(repository.rglob("*")) == before


def test_packages_that_the_server_does_not_have_are_named_with_the_version_that_is_here(
    repository: Path, files: Path
) -> None:
    with brought(
        repository, preprocess=write(files, f"import io, psutil, soundfile\nfrom PIL import Image\n{PREPROCESS}")
    ) as steps:
        said = folders.advice(repository / "net", steps)
        text = repository / "net_preprocess" / "requirements.txt"
        assert re.fullmatch(
            rf"net_preprocess imports psutil, soundfile: {text} has to name psutil==[\d.]+, soundfile==", said[0]
        )
        text.write_text("psutil==7.0.0\nsoundfile==0.13.1\n")
        assert folders.advice(repository / "net", steps) == ["Clients call net_pipeline"]


def test_steps_are_for_graphs_that_are_brought(tmp_path: Path) -> None:
    done = Workspace(tmp_path).run_here("export", "fashion", "--preprocess", "mine.py")
    assert done.returncode == 2 and "a family has its steps in git" in done.stderr


def test_a_configuration_that_is_none_is_named(repository: Path) -> None:
    (repository / "net" / "config.pbtxt").write_text("{")
    with pytest.raises(ConfigError, match=r"net/config\.pbtxt is no model configuration"):
        network.read(repository / "net")


def test_every_template_is_used() -> None:
    used = {f"{name}.j2" for name in ("model.py", "preprocess.py", "postprocess.py", "step.pbtxt", "pipeline.pbtxt")}
    assert {path.name for path in (Path(render.__file__).parent / "templates").iterdir()} == used
