"""A copy has what links lead to, as far as whoever made them could read it by himself."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import copying
from contracts.errors import FolderError
from tests.small_releases import files, written

SOMEBODY = 54321  # a user of no group


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_a_cache_of_links_is_followed_to_its_blobs(place: Path) -> None:
    """As `huggingface_hub` keeps them: snapshots/REVISION/FILE is a link to ../../blobs/DIGEST."""
    cache = written(place / "hub" / "models--x", {"blobs/0a1b": "weights", "blobs/2c3d": "{}"})
    snapshot = cache / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").symlink_to("../../blobs/0a1b")
    (snapshot / "config.json").symlink_to("../../blobs/2c3d")
    model = written(place / "model", {"config.pbtxt": "", "1/labels.txt": "a"})
    (model / "1" / "model.onnx").symlink_to(snapshot / "model.onnx")
    (model / "2").symlink_to(snapshot)
    copying.copy(model, place / "copy", outside=True)
    assert files(place / "copy") == {
        "config.pbtxt": "",
        "1/labels.txt": "a",
        "1/model.onnx": "weights",
        "2/model.onnx": "weights",
        "2/config.json": "{}",
    }
    assert not any(path.is_symlink() for path in (place / "copy").rglob("*"))


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("target", ["../elsewhere/gone", "link"])
def test_a_link_that_leads_nowhere_is_named(place: Path, target: str, outside: bool) -> None:
    model = written(place / "model", {"config.pbtxt": ""})
    (model / "link").symlink_to(target)
    with pytest.raises(
        FolderError, match=rf"model/link is a link to {target}, which leads nowhere\nNote: .*\nHint: put"
    ):
        copying.copy(model, place / "copy", outside=outside)


@pytest.mark.parametrize("target", [".", "inner", "..", "../elsewhere", "/"])
def test_links_that_go_in_a_circle_end(place: Path, target: str) -> None:
    model = written(place / "model", {"inner/a": "a"})
    elsewhere = written(place / "elsewhere", {"b": "b"})
    (model / "inner" / "link").symlink_to(model / target)
    (elsewhere / "again").symlink_to(elsewhere)
    with pytest.raises(FolderError, match=r"(link|again) is a link to "):
        copying.copy(model, place / "copy", outside=True)


def test_without_being_told_so_it_stays_inside(place: Path) -> None:
    written(place / "elsewhere", {"b": "b"})
    (written(place / "model", {"a": "a"}) / "link").symlink_to("../elsewhere/b")
    with pytest.raises(FolderError, match=r"model/link is a link to .*/elsewhere/b"):
        copying.copy(place / "model", place / "copy")


@pytest.mark.parametrize(
    ("mode", "folder_mode", "may"), [(0o644, 0o755, True), (0o600, 0o755, False), (0o644, 0o700, False)]
)
def test_a_link_gives_no_more_than_its_owner_could_read(
    place: Path, monkeypatch: pytest.MonkeyPatch, mode: int, folder_mode: int, may: bool
) -> None:
    """Somebody who may write into the repository has a link in it lead to a file of ours, and we may be root."""
    secret = written(place / "home", {"secret": "s"}) / "secret"
    (written(place / "model", {"a": "a"}) / "link").symlink_to(secret)
    secret.chmod(mode)
    (place / "home").chmod(folder_mode)
    monkeypatch.setattr(copying, "_owners", lambda path: [SOMEBODY] if path.is_symlink() else [])
    if may:
        copying.copy(place / "model", place / "copy", outside=True)
        assert files(place / "copy") == {"a": "a", "link": "s"}
    else:
        with pytest.raises(FolderError, match=rf"model/link leads to .*/secret, .* user with number {SOMEBODY}"):
            copying.copy(place / "model", place / "copy", outside=True)


def test_a_model_that_is_a_link_is_read_for_whoever_made_that(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = written(place / "home", {"open": "o", "1/weights": "w"})
    (place / "model").symlink_to(home)
    monkeypatch.setattr(copying, "_owners", lambda path: [SOMEBODY] if path.is_symlink() else [])
    copying.copy(place / "model", place / "copy")
    assert files(place / "copy") == {"open": "o", "1/weights": "w"}
    (home / "1" / "weights").chmod(0o600)
    with pytest.raises(FolderError, match=f"1/weights, which is not for the user with number {SOMEBODY}"):
        copying.copy(place / "model", place / "again")


def test_what_a_linked_folder_holds_is_read_for_whoever_made_the_link(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = written(place / "home", {"open": "o", "inner/secret": "s"})
    (home / "inner" / "secret").chmod(0o600)
    (written(place / "model", {"a": "a"}) / "link").symlink_to(home)
    monkeypatch.setattr(copying, "_owners", lambda path: [SOMEBODY] if path.is_symlink() else [])
    with pytest.raises(FolderError, match="inner/secret"):
        copying.copy(place / "model", place / "copy", outside=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="to give a link to somebody else takes root")
def test_each_link_on_the_way_counts(place: Path) -> None:
    """Ours leads to one of somebody's, who has it lead to a file of ours."""
    secret = written(place / "home", {"secret": "s"}) / "secret"
    secret.chmod(0o600)
    (place / "theirs").symlink_to(secret)
    os.lchown(place / "theirs", SOMEBODY, SOMEBODY)
    (written(place / "model", {"a": "a"}) / "link").symlink_to(place / "theirs")
    with pytest.raises(FolderError, match=f"user with number {SOMEBODY}"):
        copying.copy(place / "model", place / "copy", outside=True)
    os.chown(secret, SOMEBODY, SOMEBODY)
    shutil.rmtree(place / "copy")
    copying.copy(place / "model", place / "copy", outside=True)
    assert (place / "copy" / "link").read_text() == "s"
