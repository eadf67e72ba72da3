"""A feature store of made-up flights: built, materialised and served once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training import made_up_flights as made_up
from tests.training.features.stores import Store, ingest


def made_up_store(root: Path, tools: Path) -> Store:
    """A store whose stages before have run."""
    store = Store(root, tools)
    ingest(store, made_up.write_year(root / "raw"))
    return store


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, data_tools: Path) -> Store:
    """A store whose training rows are built."""
    store = made_up_store(tmp_path_factory.mktemp("built"), data_tools)
    told = store.must("build")
    assert told["rows"] == 2304
    return store


@pytest.fixture
def store(tmp_path: Path, data_tools: Path) -> Iterator[Store]:
    """A store of the test's own, of which nothing is built yet."""
    yield made_up_store(tmp_path, data_tools)
