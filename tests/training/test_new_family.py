"""`python -m training new`: the other family under another name, all of it or nothing, and nothing else is touched."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts import layout
from tests.conftest import FAMILY, MODEL
from tests.tracked import tracked
from tests.workspace import POSTPROCESS, PREPROCESS, Workspace
from training import families, new_family
from training.errors import FamilyError, TrainingError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The families and the model repository as git has them, in a folder of their own."""
    folders = ("training/families", "model_repository", "configs/sweeps", "configs/model_params")
    for path in (path for folder in folders for path in tracked(folder)):
        copy = tmp_path / path.relative_to(layout.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    monkeypatch.setattr(new_family, "_FAMILIES", tmp_path / "training" / "families")
    for name in ("sweeps", "model_params"):
        monkeypatch.setattr(layout, name, lambda name=name: tmp_path / "configs" / name)
    monkeypatch.setenv("MODEL_REPOSITORY", str(tmp_path / "model_repository"))
    return tmp_path


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def renamed_back(files: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    """The files with the family's name in place of `name`: every occurrence, as `name` is no word of theirs."""
    swap = name.encode(), FAMILY.encode()
    return {path.replace(name, FAMILY): content.replace(*swap) for path, content in files.items()}


def test_it_is_the_other_family_under_another_name(root: Path) -> None:
    before = contents(root)
    made = new_family.make("qzx", FAMILY)
    after = contents(root)
    added = {path: after[path] for path in after.keys() - before.keys()}
    assert renamed_back(added, "qzx") == {path: content for path, content in before.items() if f"/{FAMILY}" in path}
    changed = [path for path in before if after[path] != before[path]]
    assert changed == ["training/families/__init__.py"]
    lines = after[changed[0]].decode().replace('    "qzx": "training.families.qzx",\n', "")
    assert lines == before[changed[0]].decode(), "one line was added"
    assert [path.relative_to(root).as_posix() for path in made.paths] == [
        "training/families/qzx",
        "configs/sweeps/qzx",
        *(f"model_repository/qzx{role}" for role in ("", "_classifier", "_postprocess", "_preprocess")),
        "training/families/__init__.py",
    ]


def test_no_file_of_it_says_the_other_familys_name_but_where_the_data_has_it(root: Path) -> None:
    made = new_family.make("qzx", FAMILY)
    left = []
    for folder in (made.folder, *made.serving):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix in {".py", ".pbtxt", ".yaml", ".md"}:
                left += [line for line in path.read_text().splitlines() if re.search(rf"\b{FAMILY}(?!-mnist)\b", line)]
    assert left == ['"""What the fashion classifier promises."""'], "prose is the author's to mend"


def test_no_command_and_no_path_of_it_names_the_other_family(root: Path) -> None:
    """Where the word is one of its data's, as of flights, it stays; in what somebody types it does not."""
    made = new_family.make("qzx", "flights")
    typed = re.compile(r"-m \w+[^`\n]*? flights\b|/flights/|families\.flights\b|family: flights\b")
    for folder in (made.folder, *made.serving, root / "configs" / "model_params" / "qzx"):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".md", ".yaml", ".pbtxt")):
            assert not typed.findall(path.read_text()), path
    assert root / "configs" / "model_params" / "qzx" in made.paths
    said = new_family.next_steps(made)
    assert f"dvc repro {made.folder / 'pipeline' / 'dvc.yaml'}" in said and "stages.py" in said


def test_its_network_may_have_a_name_of_its_own(root: Path) -> None:
    made = new_family.make("qzx", FAMILY, network="regressor")
    assert "qzx_regressor" in {path.name for path in made.serving}
    network = (root / "model_repository" / "qzx_regressor" / "config.pbtxt").read_text()
    assert 'name: "qzx_regressor"' in network
    assert 'model_name: "qzx_regressor"' in (root / "model_repository" / "qzx" / "config.pbtxt").read_text()
    assert 'model="qzx_regressor"' in (made.folder / "spec.py").read_text()


def test_releases_and_what_was_made_are_not_copied(root: Path) -> None:
    version = root / "model_repository" / MODEL / "3"
    (root / "model_repository" / PREPROCESS / "1" / "__pycache__").mkdir()
    (root / "model_repository" / PREPROCESS / "1" / "__pycache__" / "images.cpython-311.pyc").write_bytes(b"\x00")
    for folder in (version, version.with_name(".parked-2")):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"weights")
    new_family.make("qzx", FAMILY)
    copied = {path.name for path in (root / "model_repository").rglob("qzx*/**/*")}
    assert "config.pbtxt" in copied and "images.py" in copied
    assert not copied & {"3", "model.onnx", ".parked-2", "__pycache__"}


def test_a_copy_of_a_copy_is_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for a family's name is found in any family, not in one alone."""
    new_family.make("qzx", FAMILY)
    spec = families.spec(FAMILY)
    monkeypatch.setitem(families.FAMILIES, "qzx", "training.families.qzx")  # type: ignore[arg-type]  # it is a dict
    of_copy = spec.__class__(
        "qzx", "qzx_classifier", spec.inputs, spec.outputs, spec.limits, spec.task, labels=spec.labels
    )
    monkeypatch.setattr(families, "spec", lambda name: of_copy if name == "qzx" else spec)
    first = {path: content for path, content in contents(root).items() if "/qzx" in path}
    new_family.make("wvk", "qzx")
    second = {path: content for path, content in contents(root).items() if "/wvk" in path}
    assert first and renamed_back(second, "wvk") == renamed_back(first, "qzx")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two words", "cannot be called 'two words'"),
        ("../pump", "cannot be called '../pump'"),
        ("", "cannot be called ''"),
        ("a-b", "it is a Python package, too"),
        ("7up", "it is a Python package, too"),
        ("class", "it is a Python package, too"),
        (FAMILY, f"there is a family {FAMILY} already"),
        (MODEL, f"{MODEL} is there already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(root: Path, name: str, message: str) -> None:
    before = contents(root)
    with pytest.raises(FamilyError, match=re.escape(message)):
        new_family.make(name, FAMILY)
    assert contents(root) == before


def test_a_family_that_is_not_there_cannot_be_copied(root: Path) -> None:
    with pytest.raises(TrainingError, match="there is no family 'nope'"):
        new_family.make("qzx", "nope")


def test_a_disk_that_is_full_leaves_nothing_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, written = contents(root), []

    def write(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == 9:
            raise OSError(28, "No space left on device", str(path))
        with path.open("wb") as file:
            file.write(content)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OSError, match="No space left"):
        new_family.make("qzx", FAMILY)
    assert contents(root) == before
    assert not list(root.rglob("*qzx*"))


def test_it_says_what_to_edit_next_in_order_and_the_commands(root: Path) -> None:
    made = new_family.make("qzx", FAMILY)
    said = new_family.next_steps(made).splitlines()
    files = [line.split()[1] for line in said if re.match(r" +\d+\.", line)]
    assert [Path(file).name for file in files[:3]] == ["data.py", "spec.py", "model.py"]
    assert all((root / Path(file).relative_to(root)).is_file() for file in files)
    assert {Path(file).parent.name for file in files} == {"qzx", *(m.name for m in made.serving)}
    assert said[-3:] == [
        "  python -m training fit qzx --preset demo",
        "  python -m export qzx",
        "  python -m deploy up",
    ]


def test_the_labels_and_steps_of_the_ensemble_are_its_own(root: Path) -> None:
    new_family.make("qzx", FAMILY)
    ensemble = (root / "model_repository" / "qzx" / "config.pbtxt").read_text()
    assert re.findall(r'model_name: "(\w+)"', ensemble) == ["qzx_preprocess", "qzx_classifier", "qzx_postprocess"]
    assert 'string_value: "qzx"' in ensemble, "what to export is said of it, too"
    assert (root / "model_repository" / "qzx_postprocess" / "labels.txt").read_bytes() == (
        root / "model_repository" / POSTPROCESS / "labels.txt"
    ).read_bytes()


@pytest.mark.parametrize("arguments", [("new",), ("new", "pump", "--like", "nope"), ("new", "pump", "--preset", "x")])
def test_a_mistake_on_the_command_line_is_one(workspace: Workspace, arguments: tuple[str, ...]) -> None:
    done = workspace.run_here("training", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
