"""Python steps of one's own: they come along with an export; what FILE.py lacks is said before any work."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from export.errors import StepFileError
from export.release import ensemble
from export.scaffold import folders, step_file
from export.scaffold.step_file import Role
from tests.conftest import Workspace
from tests.export.networks import asked, texts, write_network

PREPROCESS = "def preprocess(raw):\n    return {'ids': [len(raw)], 'text': raw}\n"
POSTPROCESS = 'OUTPUTS = {"label": ("string", [1])}\ndef postprocess(logits):\n    return "ab"[logits.argmax()]\n'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_network(tmp_path / "model_repository")
    return tmp_path / "model_repository"


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
