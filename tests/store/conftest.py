"""Stores of both kinds, empty, for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.databases import PostgreSQL, postgresql


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    fresh: str = request.getfixturevalue("server").new()
    return fresh
