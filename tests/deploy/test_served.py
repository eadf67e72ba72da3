"""What a server is given: private copies that nobody else can change, in Triton's layout."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts import manifest, model_config
from contracts.bundle import Bundle
from contracts.errors import ManifestError, SignatureError
from contracts.signing import Trust
from deploy.served import assemble, content
from deploy.versions import leaving
from tests.small_releases import ensemble, release_of

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
    assert {found.pop(f"{name}/.release") for name in names} == {"net"}
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
    release = release_of(("net",), version=1, files=manifest.files_of(directory))
    manifest.write(release, directory)
    return directory


def test_the_version_of_a_step_that_an_ensemble_asks_for_is_the_one_that_is_taken(
    bundle: Bundle, tmp_path: Path
) -> None:
    config = tmp_path / "repository" / "family" / "config.pbtxt"
    config.write_text(ENSEMBLE.replace("model_version: -1", "model_version: 1"))
    assemble.place(assemble.take(bundle, tmp_path / "taken"), tmp_path / "served", None)
    assert (tmp_path / "served" / "before" / "3" / "model.py").read_text() == "1"


def sealed(root: Path, network: str, version: int, models: Mapping[str, Mapping[str, str]]) -> Path:
    """A release of a network in a repository, with the models in its bundle."""
    files = {f"release/{name}/{path}": text for name, files in models.items() for path, text in files.items()}
    directory = written(root / network / str(version), {"model.onnx": network, **files})
    written(root, {f"{network}/config.pbtxt": "not looked at: {"})
    listed = manifest.files_of(directory)
    manifest.write(release_of(tuple(models), model=network, version=version, files=listed), directory)
    return directory


def around(network: str, step: str) -> dict[str, dict[str, str]]:
    """A network with an ensemble above it and above `shared`, which says whose it is."""
    return {
        network: {"config.pbtxt": 'backend: "onnxruntime"'},
        f"{network}_whole": {"config.pbtxt": ensemble("shared", network)},
        "shared": {"config.pbtxt": f'name: "shared" backend: "{step}"', "1/model.py": f"of {network}"},
    }


def steps(folder: Path) -> list[tuple[str, int]]:
    config = model_config.read(folder / "config.pbtxt")
    return [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]


def test_a_step_that_two_releases_share_is_served_as_each_has_sealed_it(tmp_path: Path) -> None:
    root, served = tmp_path / "repository", tmp_path / "private" / "repository"
    sealed(root, "a", 3, around("a", "python"))
    sealed(root, "b", 7, around("b", "python"))
    served.mkdir(parents=True)
    assert content.put(content.choose(root), served, None, None, print) == {}
    assert {path.name for path in served.iterdir()} == {"a", "a_whole", "shared", "b", "b_whole", "shared.of_b"}
    assert (served / "shared" / "3" / "model.py").read_text() == "of a"
    assert (served / "shared.of_b" / "7" / "model.py").read_text() == "of b"
    assert model_config.read(served / "shared.of_b" / "config.pbtxt").name == "shared.of_b"
    assert steps(served / "a_whole") == [("shared", 3), ("a", 3)]
    assert steps(served / "b_whole") == [("shared.of_b", 7), ("b", 7)]
    assert assemble.models_of(served, "b") == ["b", "b_whole", "shared.of_b"]


def test_a_model_with_a_link_to_nowhere_is_left_out_and_the_others_are_served(tmp_path: Path) -> None:
    root, served = tmp_path / "repository", tmp_path / "private" / "repository"
    cache = written(tmp_path / "cache", {"weights": "w"})
    for name, target in {"good": cache / "weights", "bad": cache / "gone"}.items():
        written(root / name, {"config.pbtxt": 'backend: "python"', "1/model.py": "code"})
        (root / name / "1" / "weights").symlink_to(target)
    served.mkdir(parents=True)
    failed = content.put(content.choose(root), served, None, None, print)
    assert failed.keys() == {"bad"} and f"bad/1/weights is a link to {cache / 'gone'}, which" in str(failed["bad"])
    assert (served / "good" / "1" / "weights").read_text() == "w" and not (served / "bad").exists()


def test_names_are_nobody_elses(tmp_path: Path) -> None:
    """A network that another release has as a step, from when it had no releases; and somebody's model of our name."""
    root, served = tmp_path / "repository", tmp_path / "private" / "repository"
    by_hand = {"config.pbtxt": 'backend: "python"', "1/model.py": "hand-made"}
    sealed(root, "a", 1, {**around("a", "python"), "b": by_hand})
    sealed(root, "b", 2, around("b", "python"))
    written(root / "b.of_a", {"config.pbtxt": 'backend: "python"', "1/model.py": "somebody's"})
    served.mkdir(parents=True)
    found = content.choose(root)
    release = found.release_of("b")
    assert release is not None and release.network == "b"
    content.put(found, served, None, None, print)
    texts = {name: (served / name).glob("*/model.*") for name in ("b", "b.of_a", "b.of_a_")}
    assert {name: [path.read_text() for path in paths] for name, paths in texts.items()} == {
        "b": ["b"],
        "b.of_a": ["somebody's"],
        "b.of_a_": ["hand-made"],
    }


def test_what_the_next_release_has_no_more_goes_unless_it_is_needed(tmp_path: Path) -> None:
    root, served = tmp_path / "repository", tmp_path / "private" / "repository"
    models = around("a", "python")
    models["more"] = {"config.pbtxt": ensemble("a", "kept", "used")}
    models |= {name: {"config.pbtxt": 'backend: "python"', "1/model.py": ""} for name in ("kept", "used")}
    sealed(root, "a", 1, models)
    written(root / "broken", {"config.pbtxt": "a typo {", "1/x": ""})
    written(root / "loose", {"config.pbtxt": "", "configs/cpu.pbtxt": ensemble("over"), "1/x": ""})
    written(root / "over", {"config.pbtxt": ensemble("used"), "1/x": ""})
    served.mkdir(parents=True)
    content.put(content.choose(root), served, None, None, print)
    assert leaving.of(served, "a", ["a", "a_whole", "shared", "kept"]) == ["more"]
    assert leaving.of(served, "a", ["a"]) == ["a_whole", "kept", "more", "shared"]
    (served / "a_whole.r2").mkdir()
    (served / "a_whole.r2" / ".release").write_text("a.r2")
    assert "a_whole.r2" not in leaving.of(served, "a", ["a"]), "an arm stays until it is taken away"
