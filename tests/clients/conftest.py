"""What the tests of the clients share."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from cli.run import exit_code_of
from clients import Client
from clients.command_line.main import main
from clients.settings import Protocol
from contracts.errors import ProjectError
from tests.clients.small_models import Small, serving
from tests.conftest import MODEL, RunningServer

Run = Callable[..., "CompletedProcess[bytes]"]

CLASSIFIER = MODEL
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


@pytest.fixture(params=PROTOCOLS)
def url(server: RunningServer, request: pytest.FixtureRequest) -> str:
    """The server's address, over either protocol."""
    return f"{request.param}://{getattr(server, request.param)}"


@pytest.fixture(params=PROTOCOLS)
def nobody(request: pytest.FixtureRequest) -> str:
    """An address, over either protocol, at which there is nobody: for what is refused before anything is sent."""
    return f"{request.param}://127.0.0.1:1"


@pytest.fixture(scope="session")
def images(examples: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(examples.glob("*.png"))]


@pytest.fixture(scope="session")
def right(server: RunningServer, images: list[bytes]) -> list[float]:
    """The score of each image, by which an answer is known to be its own."""
    with Client(f"grpc://{server.grpc}") as client:
        scores = [client.classify(image).score for image in images]
    assert len({round(score, 4) for score in scores}) > 40
    return scores


@pytest.fixture(scope="session")
def admin_key(server: RunningServer) -> str:
    return (server.workspace.root / "artifacts" / "server" / "admin.key").read_text().strip()


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """More of them than the classifier takes at once."""
    return np.random.default_rng(0).integers(0, 256, (150, 1, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """A real server with small models of many kinds."""
    with serving(tmp_path_factory.mktemp("small")) as server:
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`python -m clients ARGUMENTS…`, in this process: a process of its own takes a second to begin."""

    def run_here(*arguments: str | Path, stdin: bytes = b"") -> "CompletedProcess[bytes]":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        output, errors = (io.TextIOWrapper(io.BytesIO(), errors="backslashreplace") for _ in range(2))
        with redirect_stdout(output), redirect_stderr(errors):
            try:
                code = exit_code_of(lambda: main([*map(str, arguments)]), ProjectError)
            except SystemExit as ended:  # an argument was wrong
                code = int(ended.code or 0)
        found = []
        for stream in (output, errors):
            stream.flush()
            found.append(stream.detach().getvalue())  # type: ignore[attr-defined]  # a BytesIO
        return CompletedProcess(arguments, code, *found)

    return run_here
