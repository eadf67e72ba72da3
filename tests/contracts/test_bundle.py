"""A release holds everything that decides an answer, as it was when it was made."""

import shutil
from pathlib import Path

import pytest

from contracts import bundle, copying, manifest, repository
from contracts.errors import ManifestError, ModelConfigError, ProjectError, PublishError
from tests.small_releases import NETWORK, PYTHON, ensemble, files, release_of, written


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with `net`, its ensemble `way` and their steps, and a network `other` that was never exported."""
    root = written(
        tmp_path / "repository",
        {
            "net/config.pbtxt": NETWORK,
            "net/configs/cpu.pbtxt": NETWORK,
            "net/warmup/x": "x",
            "net/1/model.onnx": "one",
            "net/.publish.lock": "",
            "way/config.pbtxt": ensemble("before", "net", "after"),
            "way/1/README": "empty",
            "before/config.pbtxt": PYTHON,
            "before/labels.txt": "a",
            "before/1/model.py": "old",
            "before/2/model.py": "new",
            "before/2/__pycache__/model.pyc": "planted",
            "before/.parked-3/model.py": "parked",
            "after/config.pbtxt": PYTHON,
            "after/1/model.py": "after",
            "other/config.pbtxt": NETWORK,
            "stray/config.pbtxt": PYTHON,
        },
    )
    manifest.write(release_of((), version=1), root / "net" / "1")
    return root


def sealed(root: Path, number: int = 2) -> Path:
    """Publish a version of `net` with its bundle."""
    directory = root / "net" / str(number)
    directory.mkdir()
    (directory / "model.onnx").write_text("two")
    models = bundle.write(root, "net", directory)
    release = release_of(models, version=number, files=manifest.files_of(directory))
    manifest.write(release, directory)
    return directory


def test_a_release_is_the_network_the_ensembles_above_it_and_their_steps(root: Path) -> None:
    assert bundle.members(root, "net") == ("net", "way", "before", "after")
    assert bundle.members(root, "other") == ("other",)


def test_ensembles_above_ensembles_and_steps_of_every_configuration_are_of_it(root: Path) -> None:
    written(
        root,
        {
            "whole/config.pbtxt": ensemble("way", "stray"),
            "whole/configs/cpu.pbtxt": ensemble("way", "light"),
            "light/config.pbtxt": ensemble("inner"),
            "inner/config.pbtxt": PYTHON,
            "round/config.pbtxt": ensemble("round", "whole"),
        },
    )
    found = bundle.members(root, "net")
    assert found[0] == "net" and len(found) == len({*found})
    assert {*found} == {"net", "way", "before", "after", "whole", "stray", "light", "inner", "round"}


@pytest.mark.parametrize("published", [False, True])
def test_an_ensemble_over_two_networks_belongs_to_no_release(root: Path, published: bool) -> None:
    written(root, {"both/config.pbtxt": ensemble("way", "other", "stray"), "above/config.pbtxt": ensemble("both")})
    if published:
        written(root, {"other/.parked-1/manifest.json": "{}"})
    assert bundle.members(root, "net") == ("net", "way", "before", "after")
    assert bundle.members(root, "other") == ("other",)
    assert bundle.outside(root, "net") == bundle.outside(root, "other") == ("above", "both")


def test_a_network_that_somebody_put_there_by_hand_is_a_step_of_the_release_above_it(root: Path) -> None:
    written(root, {"own/config.pbtxt": NETWORK, "own/3/model.onnx": "own", "both/config.pbtxt": ensemble("own", "net")})
    assert {*bundle.members(root, "net")} == {"net", "way", "before", "after", "both", "own"}
    directory = root / "net" / ".staging-2"
    directory.mkdir()
    bundle.write(root, "net", directory)
    assert (directory / bundle.FOLDER / "own" / "3" / "model.onnx").read_text() == "own"


def test_the_bundle_has_all_but_other_versions_and_what_is_hidden(root: Path) -> None:
    directory = root / "net" / ".staging-2"
    directory.mkdir()
    assert bundle.write(root, "net", directory) == ("net", "way", "before", "after")
    assert files(directory / bundle.FOLDER) == {
        "net/config.pbtxt": NETWORK,
        "net/configs/cpu.pbtxt": NETWORK,
        "net/warmup/x": "x",
        "way/config.pbtxt": ensemble("before", "net", "after"),
        "way/1/README": "empty",
        "before/config.pbtxt": PYTHON,
        "before/labels.txt": "a",
        "before/2/model.py": "new",
        "after/config.pbtxt": PYTHON,
        "after/1/model.py": "after",
    }


def test_a_release_is_what_it_was_whatever_becomes_of_the_repository(root: Path) -> None:
    directory = sealed(root)
    before = {name: files(folder) for name, folder in bundle.of(root, "net", 2).models.items()}
    for name in ("way", "before", "after"):
        shutil.rmtree(root / name)
    (root / "net" / "config.pbtxt").write_text("another one")
    found = bundle.of(root, "net", 2)
    assert found == bundle.at(directory)
    assert (found.network, found.version, found.directory, found.sealed) == ("net", 2, directory, True)
    assert list(found.models) == ["net", "way", "before", "after"]
    assert {name: files(folder) for name, folder in found.models.items()} == before
    with repository.locked(root / "net"):
        repository.park(root / "net", 2)
    parked = bundle.of(root, "net", 2)
    assert parked.directory.name == ".parked-2" and files(parked.models["after"]) == before["after"]


def test_one_from_before_bundles_is_what_lies_in_the_repository_today(root: Path) -> None:
    found = bundle.of(root, "net", 1)
    assert not found.sealed and found.directory == root / "net" / "1"
    assert found.models == {name: root / name for name in ("net", "way", "before", "after")}


def test_the_manifest_covers_the_bundle(root: Path) -> None:
    directory = sealed(root)
    manifest.verify(directory)
    labels = directory / bundle.FOLDER / "before" / "labels.txt"
    labels.unlink()
    labels.write_text("b")
    with pytest.raises(ManifestError, match=r"changed: release/before/labels\.txt"):
        manifest.verify(directory)


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (("net", "gone"), "there is no release/gone"),
        (("way", "net"), "its network is way"),
        (("net", "../../way"), "'../../way', which none can be called"),
    ],
)
def test_a_bundle_that_is_not_what_its_manifest_says_is_none(root: Path, models: tuple[str, ...], told: str) -> None:
    directory = sealed(root)
    manifest.write(release_of(models), directory)
    with pytest.raises(ManifestError, match=told):
        bundle.of(root, "net", 2)


def remove_a_step(root: Path) -> None:
    shutil.rmtree(root / "before")


def remove_its_versions(root: Path) -> None:
    shutil.rmtree(root / "after" / "1")


def ask_for_another_version(root: Path) -> None:
    (root / "way" / "config.pbtxt").write_text(ensemble("before", "net", "after", version=7))


def break_the_ensemble(root: Path) -> None:
    (root / "way" / "config.pbtxt").write_text('step { model_name: "net"')


def break_another_configuration(root: Path) -> None:
    written(root, {"after/configs/cpu.pbtxt": "max_batch_sise: 1"})


def remove_the_networks_own(root: Path) -> None:
    (root / "net" / "config.pbtxt").unlink()


def link_to_nowhere(root: Path) -> None:
    (root / "before" / "vocabulary").symlink_to(root / "gone")


def link_to_itself(root: Path) -> None:
    (root / "before" / "inner").mkdir()
    (root / "before" / "inner" / "again").symlink_to(root)


@pytest.mark.parametrize(
    ("spoil", "kind", "told"),
    [
        (remove_a_step, PublishError, r"before, a step of way, has no config\.pbtxt\nNote: .*\nHint: put before into"),
        (remove_its_versions, PublishError, r"after has no one version .* of net\nNote: served are none"),
        (ask_for_another_version, PublishError, r"Note: served are 1, 2; an ensemble asks for 7"),
        (break_the_ensemble, ModelConfigError, r"way/config\.pbtxt is no model configuration"),
        (break_another_configuration, ModelConfigError, r"(?s)after/configs/cpu\.pbtxt is no .*max_batch_sise"),
        (remove_the_networks_own, ModelConfigError, r"net has no config\.pbtxt"),
        (
            link_to_nowhere,
            PublishError,
            r"cannot be part of a release: .*vocabulary is a link to .*/gone, which leads",
        ),
        (link_to_itself, PublishError, r"before cannot be part of a release: .*inner/again is a link to"),
    ],
)
def test_what_cannot_be_sealed_is_refused_by_name(
    root: Path, spoil: object, kind: type[ProjectError], told: str
) -> None:
    assert callable(spoil)
    spoil(root)
    directory = root / "net" / ".staging-2"
    directory.mkdir()
    with pytest.raises(kind, match=told):
        bundle.write(root, "net", directory)


def test_what_is_broken_elsewhere_concerns_no_release(root: Path) -> None:
    (root / "other" / "config.pbtxt").write_text("a typo")
    directory = root / "net" / ".staging-2"
    directory.mkdir()
    assert bundle.write(root, "net", directory)[0] == "net"


def test_a_step_is_taken_in_the_version_that_serves(root: Path) -> None:
    (root / "before" / "config.pbtxt").write_text(PYTHON + " version_policy { specific { versions: [ 1 ] } }")
    directory = root / "net" / ".staging-2"
    directory.mkdir()
    bundle.write(root, "net", directory)
    assert files(directory / bundle.FOLDER / "before").keys() == {"config.pbtxt", "labels.txt", "1/model.py"}


@pytest.mark.parametrize("change", ["labels.txt", "a new file"])
def test_what_changes_while_it_is_copied_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Somebody saves a file of a step after it was copied, and before the last one was."""
    copy = copying.copy

    def and_then_somebody_saves(source: Path, *rest: object, **more: bool) -> None:
        copy(source, *rest, **more)  # type: ignore[arg-type]
        if source.name == "before":
            (source / change).write_text("b")

    monkeypatch.setattr(copying, "copy", and_then_somebody_saves)
    directory = root / "net" / ".staging-2"
    directory.mkdir()
    with pytest.raises(PublishError, match=r"before changed while it was copied\nHint: run the same command again"):
        bundle.write(root, "net", directory)


def test_a_link_out_of_a_model_is_sealed_as_what_it_leads_to(root: Path) -> None:
    """Vocabularies and weights of steps lie in caches."""
    vocabulary = written(root.parent / "cache", {"vocabulary.txt": "a b c"}) / "vocabulary.txt"
    (root / "before" / "2" / "vocabulary.txt").symlink_to(vocabulary)
    directory = sealed(root)
    copied = directory / bundle.FOLDER / "before" / "2" / "vocabulary.txt"
    assert copied.read_text() == "a b c" and not copied.is_symlink()
    vocabulary.write_text("changed")
    manifest.verify(directory)


def test_a_link_within_a_model_is_copied_as_the_file_it_leads_to(root: Path) -> None:
    (root / "before" / "2" / "labels.txt").symlink_to("../labels.txt")
    directory = sealed(root)
    copied = directory / bundle.FOLDER / "before" / "2" / "labels.txt"
    assert copied.read_text() == "a" and not copied.is_symlink()
    (root / "before" / "labels.txt").write_text("changed")
    assert copied.read_text() == "a"
