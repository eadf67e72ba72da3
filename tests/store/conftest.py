"""Stores of both kinds, for each test one of its own."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.database import Database
from store.migrations import migrating
from tests.store.databases import PostgreSQL, postgresql


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    with postgresql() as up:
        yield up


@pytest.fixture(scope="session")
def templates(postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A database of each kind with the tables, of which tests have copies: to migrate takes longer."""
    made = {"sqlite": f"sqlite:///{tmp_path_factory.mktemp('template') / 'store.db'}", "postgresql": postgres.new()}

    async def make(url: str) -> None:
        async with Database(url) as database:
            await migrating.prepare(database)
            await database.tidy()

    for url in made.values():
        asyncio.run(make(url))
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    fresh: str = request.getfixturevalue("postgres").new()
    return fresh


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, templates: dict[str, str], postgres: PostgreSQL, tmp_path: Path) -> str:
    """The URL of a database with its tables, which are empty."""
    template = templates[request.param]
    if request.param == "sqlite":
        shutil.copy(template.removeprefix("sqlite:///"), tmp_path / "store.db")
        return f"sqlite:///{tmp_path / 'store.db'}"
    return postgres.new(template)
