"""What the tests of the clients share."""

from pathlib import Path

import numpy as np
import pytest

from clients import Client
from clients.settings import Protocol
from tests.conftest import RunningServer

CLASSIFIER = "fashion_classifier"
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


@pytest.fixture(params=PROTOCOLS)
def url(server: RunningServer, request: pytest.FixtureRequest) -> str:
    """The server's address, over either protocol."""
    return f"{request.param}://{getattr(server, request.param)}"


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
