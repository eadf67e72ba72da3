"""A feature store of made-up flights."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training import made_up_flights as made_up
from tests.training.features.stores import Running, Store, ingest, running


@pytest.fixture
def store(tmp_path: Path, data_tools: Path) -> Store:
    """A store of the test's own: its stages before have run, and nothing is built."""
    return made_up_store(tmp_path, data_tools)


@pytest.fixture(scope="session")
def features_up(tmp_path_factory: pytest.TempPathFactory, data_tools: Path) -> Iterator[Running]:
    """A store that is built and served, in one process: to import Feast takes seconds."""
    store = made_up_store(tmp_path_factory.mktemp("features"), data_tools)
    with running(store, build=True) as found:
        yield found


def made_up_store(root: Path, tools: Path) -> Store:
    """A store of 2,304 flights."""
    store = Store(root, tools)
    ingest(store, made_up.write_year(root / "raw"))
    return store
