"""Real Tritons and a Redis for the whole session: what kills one starts its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway import tritons, typed_models, whole
from tests.gateway.tritons import Running
from tests.gateway.whole import Whole
from tests.redis_server import RedisServer, serving


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A Triton over TCP."""
    folder: Path = tmp_path_factory.mktemp("tcp")
    with tritons.triton(tritons.repository(folder / "models")) as running:
        yield running


@pytest.fixture(scope="session")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Another one with the same models, on a Unix socket."""
    folder: Path = tmp_path_factory.mktemp("unix")
    with tritons.triton(tritons.repository(folder / "models"), f"unix:{folder}/http") as running:
        yield running


@pytest.fixture(scope="session")
def typed_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One with the small models of the typed door."""
    folder: Path = tmp_path_factory.mktemp("typed")
    with tritons.triton(typed_models.repository(folder / "models"), f"unix:{folder}/http") as running:
        yield running


@pytest.fixture(scope="session")
def gateway(typed_triton: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """The whole gateway in front of it, as its command starts it."""
    folder = tmp_path_factory.mktemp("gateway")
    typed_models.releases(folder / "releases")
    with whole.up(folder, typed_triton.address) as running:
        yield running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serving(tmp_path_factory.mktemp("redis")) as server:
        yield server
