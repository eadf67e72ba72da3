"""Real Tritons for the whole session: what kills one starts its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway import tritons
from tests.gateway.tritons import Running


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
