"""What `new-steps` writes around a network answers as it is, and is the user's from then on."""

import json
import py_compile
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contracts import golden, layout
from contracts.errors import ModelConfigError
from contracts.golden import GoldenRequest
from export.release import ensemble
from export.scaffold import folders, network, render
from tests.conftest import Workspace
from tests.export.networks import asked, texts, write_network


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_network(tmp_path / "model_repository")
    return tmp_path / "model_repository"


def new_steps(repository: Path, *options: str, model: str = "net") -> "subprocess.CompletedProcess[str]":
    return Workspace(repository.parent).run_here(
        "export", "new-steps", model, "--repository", str(repository), *options
    )


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
    assert len(files) == 6
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


def test_a_configuration_that_is_none_is_named(repository: Path) -> None:
    (repository / "net" / "config.pbtxt").write_text("{")
    with pytest.raises(ModelConfigError, match=r"net/config\.pbtxt is no model configuration"):
        network.read(repository / "net")


def test_every_template_is_used() -> None:
    code = ("model.py", "step.py", "preprocess.py", "postprocess.py")
    used = {f"{name}.j2" for name in (*code, "step.pbtxt", "pipeline.pbtxt", "one_process.pbtxt")}
    assert {path.name for path in (Path(render.__file__).parent / "templates").iterdir()} == used


def test_steps_from_before_one_process_could_run_them_stay_as_they_are(repository: Path) -> None:
    """Their model.py calls the function itself, and may have been changed."""
    new_steps(repository)
    version, pipeline = repository / "net_preprocess" / "1", repository / "net_pipeline"
    (version / "model.py").write_text("class TritonPythonModel:\n    def execute(self, requests): ...\n")
    (version / "step.py").unlink()
    (pipeline / "configs" / "cpu.pbtxt").unlink()
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    steps = folders.read_steps(repository, "net")
    with folders.written(repository, network.read(repository / "net"), steps) as made:
        assert not made
    assert new_steps(repository, "--configs").returncode == 0
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
