"""Fashion-MNIST is found, checked and split; without data and network the message says what to do."""

import gzip
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts import layout
from tests.conftest import FAMILY, Workspace
from training.errors import DataError


@pytest.fixture(scope="session")
def data() -> ModuleType:
    """The family's data module. It imports torch: late."""
    from training.families.fashion import data

    return data


@pytest.fixture(scope="session")
def files(data: ModuleType) -> Path:
    """The real files, fetched as a user's first run would."""
    return data.locate(layout.data())


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL at which nobody answers."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening
        yield f"http://127.0.0.1:{held.getsockname()[1]}/"


@pytest.fixture
def offline(data: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No installed copy, no apt-get; the mirror is up to the test."""
    monkeypatch.setattr(data, "_INSTALLED", tmp_path / "not-installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "data"


def test_no_data_and_no_network_says_what_was_tried_and_what_to_do(
    data: ModuleType, offline: Path, nobody: str
) -> None:
    with pytest.raises(DataError) as error:
        data.locate(offline, nobody)
    message = str(error.value)
    assert "could not be fetched" in message
    assert nobody in message and "Connection refused" in message
    assert "dataset-fashion-mnist" in message
    assert "put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz" in message
    assert not list((offline / "fashion-mnist").iterdir()), "nothing half-fetched stays"


def test_the_command_line_shows_that_message_and_no_traceback(
    data: ModuleType, workspace: Workspace, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an empty PATH there is no apt-get either."""
    if data._INSTALLED.exists():
        pytest.skip("the Debian package is installed on this machine")
    monkeypatch.setenv("DATA_DIR", str(workspace.root / "data"))
    monkeypatch.setenv("PATH", "")
    done = workspace.run_here("training", "fit", FAMILY, "--data.mirror", nobody)
    assert done.returncode == 1
    assert "error: Fashion-MNIST was not found and could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mirror_is_downloaded_and_kept(
    data: ModuleType, offline: Path, files: Path, http_server: str, nobody: str
) -> None:
    assert data.locate(offline, http_server) == offline / "fashion-mnist"
    assert data.locate(offline, nobody) == offline / "fashion-mnist", "the second time needs no mirror"


@pytest.fixture
def http_server(files: Path):  # type: ignore[no-untyped-def]
    """The real files behind a real HTTP server."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(files))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


@pytest.mark.parametrize("damage", ["truncated", "other content", "empty"])
def test_a_damaged_file_is_never_used(data: ModuleType, offline: Path, files: Path, nobody: str, damage: str) -> None:
    home = offline / "fashion-mnist"
    shutil.copytree(files, home)
    victim = home / "t10k-labels-idx1-ubyte.gz"
    whole = victim.read_bytes()
    victim.write_bytes({"truncated": whole[:-100], "other content": gzip.compress(b"labels"), "empty": b""}[damage])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is (damaged|not the original)"):
        data.locate(offline, nobody)


def pixels(module: Any, name: str) -> NDArray[np.uint8]:
    [group] = module.split(name).groups
    assert group.targets is not None and len(group.targets) == len(group)
    found: NDArray[np.uint8] = group.inputs["pixels"]
    return found


def test_the_splits_are_disjoint_whole_and_always_the_same(data: ModuleType, files: Path) -> None:
    first, second = data.DataModule(), data.DataModule()
    sizes = {name: len(first.split(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 55_000, "val": 5_000, "test": 10_000}
    for name in sizes:
        assert np.array_equal(pixels(first, name), pixels(second, name))
    original = data.read(files)["train-images-idx3-ubyte"]
    together = np.concatenate([pixels(first, "train"), pixels(first, "val")])
    assert sorted(map(hash, map(bytes, together))) == sorted(map(hash, map(bytes, original)))
    assert first.fingerprint == second.fingerprint


def test_augmentation_flips_and_shifts_but_keeps_every_image(data: ModuleType) -> None:
    import torch

    torch.manual_seed(0)
    image = torch.zeros(256, 1, 28, 28, dtype=torch.uint8)
    image[:, 0, 14, 10] = 200  # one bright pixel, four columns left of the middle
    moved = data._flip_and_shift(image)
    assert moved.shape == image.shape and moved.dtype == torch.uint8
    rows, columns = np.divmod(moved.flatten(1).argmax(1).numpy(), 28)
    assert (moved.flatten(1).sum(1) == 200).all()
    assert set(rows) == {12, 13, 14, 15, 16}
    assert set(columns) == {8, 9, 10, 11, 12, 15, 16, 17, 18, 19}
