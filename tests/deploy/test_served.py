"""What a server is given: private copies that nobody else can change, in Triton's layout."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts import manifest, model_config
from contracts.bundle import Bundle
from contracts.errors import ManifestError, SignatureError
from contracts.manifest import Manifest, Source
from contracts.signing import Trust
from deploy.served import assemble

NETWORK = 'name: "net" backend: "onnxruntime" max_batch_size: 4 version_policy { latest { num_versions: 2 } }'
ENSEMBLE = """
name: "family" platform: "ensemble" max_batch_size: 4
ensemble_scheduling { step [
  { model_name: "before" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } },
  { model_name: "net" model_version: 1 input_map { key: "y" value: "y" } output_map { key: "z" value: "z" } },
  { model_name: "elsewhere" model_version: 5 input_map { key: "z" value: "z" } output_map { key: "a" value: "a" } }
] }
"""


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Release 3 of `net`, as its files lie in a repository of today: with an ensemble and a step, other versions."""
    root = tmp_path / "repository"
    written(
        root / "net",
        {
            "config.pbtxt": NETWORK,
            "configs/cpu.pbtxt": NETWORK.replace("4", "2"),
            "warmup/x": "x",
            "2/model.onnx": "two",
            "3/model.onnx": "three",
        },
    )
    written(root / "before", {"config.pbtxt": 'name: "before" backend: "python"', "1/model.py": "1", "labels": "a"})
    written(root / "before", {"2/__pycache__/model.pyc": "planted", ".hidden": "", "2/model.py": "2"})
    written(root / "family", {"config.pbtxt": ENSEMBLE, "1/README": "empty"})
    return Bundle("net", 3, root / "net" / "3", {name: root / name for name in ("net", "family", "before")}, False)


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_release_is_assembled_under_its_number(bundle: Bundle, tmp_path: Path) -> None:
    names = assemble.place(assemble.take(bundle, tmp_path / "taken"), tmp_path / "served", None)
    assert names == ("net", "family", "before")
    found = files(tmp_path / "served")
    configs = {name: found.pop(f"{name}/config.pbtxt") for name in names}
    assert found == {
        "net/warmup/x": "x",
        "net/3/model.onnx": "three",
        "before/labels": "a",
        "before/3/model.py": "2",
        "before/3/__pycache__": "",  # no folder of compiled code can be made
        "family/3/README": "empty",
    }
    for name, text in configs.items():
        assert list(model_config.parse(text.encode(), name).version_policy.specific.versions) == [3]


def test_the_configuration_that_is_asked_for_is_the_only_one(bundle: Bundle, tmp_path: Path) -> None:
    taken = assemble.take(bundle, tmp_path / "taken")
    for place, name, batch in (("gpu", None, 4), ("cpu", "cpu", 2)):
        assemble.place(taken, tmp_path / place, name)
        assert model_config.read(tmp_path / place / "net" / "config.pbtxt").max_batch_size == batch
        assert not (tmp_path / place / "net" / "configs").exists()


def test_an_arm_has_names_of_its_own_and_calls_its_own_steps(bundle: Bundle, tmp_path: Path) -> None:
    names = assemble.place(assemble.take(bundle, tmp_path / "taken"), tmp_path / "served", None, ".r3")
    assert names == ("net.r3", "family.r3", "before.r3")
    config = model_config.read(tmp_path / "served" / "family.r3" / "config.pbtxt")
    assert config.name == "family.r3"
    steps = [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]
    assert steps == [("before.r3", 3), ("net.r3", 3), ("elsewhere", 5)]


def test_a_later_change_on_disk_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    assemble.place(assemble.take(bundle, tmp_path / "taken"), tmp_path / "served", None)
    before = files(tmp_path / "served")
    for path in (tmp_path / "repository").rglob("*"):
        if path.is_file():
            with path.open("r+") as original:  # in place: a hard link would show it
                original.write("CHANGED")
    assert files(tmp_path / "served") == before
    assert not any(path.stat().st_mode & 0o222 for path in (tmp_path / "served").rglob("*") if path.is_file())


def test_what_is_not_as_published_is_not_taken(bundle: Bundle, tmp_path: Path, published: Path) -> None:
    sealed = Bundle("net", 1, published, {"net": published / "release" / "net"}, True)
    taken = assemble.take(sealed, tmp_path / "taken")
    assert taken.models["net"].is_relative_to(tmp_path / "taken")
    (published / "release" / "net" / "config.pbtxt").write_text("# a typo")
    with pytest.raises(ManifestError, match=r"changed: release/net/config\.pbtxt"):
        assemble.take(sealed, tmp_path / "again")
    with pytest.raises(SignatureError, match="unsigned"):
        assemble.take(bundle, tmp_path / "trusted", Trust(tmp_path / "verify.pem"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A sealed version on disk."""
    directory = written(tmp_path / "sealed" / "1", {"model.onnx": "one", "release/net/config.pbtxt": NETWORK})
    release = Manifest(
        family="net",
        model="net",
        version=1,
        created_at="2026-01-01T00:00:00+00:00",
        command="python -m export",
        source=Source("best.ckpt", "00", "11", None, None, None),
        tools={},
        calibration_samples=0,
        test_samples=0,
        reference_score=None,
        gates=(),
        variants=(),
        trials=(),
        sensitivity=(),
        choices=(),
        files=manifest.files_of(directory),
    )
    manifest.write(release, directory)
    return directory


def test_the_version_of_a_step_that_an_ensemble_asks_for_is_the_one_that_is_taken(
    bundle: Bundle, tmp_path: Path
) -> None:
    config = tmp_path / "repository" / "family" / "config.pbtxt"
    config.write_text(ENSEMBLE.replace("model_version: -1", "model_version: 1"))
    assemble.place(assemble.take(bundle, tmp_path / "taken"), tmp_path / "served", None)
    assert (tmp_path / "served" / "before" / "3" / "model.py").read_text() == "1"
