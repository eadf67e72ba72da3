"""Releases that have served, and what judges found of them."""

import secrets
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite

from store import schema
from store.database import Database

_release, _verdict = schema.Release, schema.Verdict


@dataclass(frozen=True)
class Verdict:
    """What a judge found of a release, held against another; `time` is in nanoseconds since 1970."""

    id: str
    time: int
    model: str
    release: str
    against: str | None
    judge: str
    passed: bool
    evidence: Mapping[str, Any] | None


@dataclass(frozen=True)
class Release:
    """A release; its verdicts are the newest first."""

    model: str
    release: str
    digest: str | None
    first_seen: int
    data: Mapping[str, Any] | None
    verdicts: tuple[Verdict, ...] = ()


async def note(
    database: Database, model: str, release: str, digest: str | None = None, data: Mapping[str, Any] | None = None
) -> None:
    """Note that a release serves; one that is known stays as it is."""
    row = {"model": model, "release": release, "digest": digest, "data": data, "first_seen": time.time_ns()}
    own = sqlite if database.is_sqlite else postgresql
    async with database.writing() as connection:
        await connection.execute(own.insert(_release).values(row).on_conflict_do_nothing())


async def judge(
    database: Database, model: str, release: str, judge: str, *, passed: bool,
    against: str | None = None, evidence: Mapping[str, Any] | None = None,
) -> Verdict:  # fmt: skip
    """Keep a verdict; one of before stays beside it."""
    verdict = Verdict(secrets.token_hex(16), time.time_ns(), model, release, against, judge, passed, evidence)
    async with database.writing() as connection:
        await connection.execute(insert(_verdict).values(vars(verdict)))
    return verdict


async def of(database: Database, model: str | None = None) -> list[Release]:
    """Return the releases, the newest first, with their verdicts; two statements."""
    releases = select(_release.__table__).order_by(_release.first_seen.desc(), _release.release.desc())
    verdicts = select(_verdict.__table__).order_by(_verdict.time.desc(), _verdict.id)
    if model is not None:
        releases, verdicts = releases.where(_release.model == model), verdicts.where(_verdict.model == model)
    async with database.reading() as connection:
        found = (await connection.execute(releases)).all()
        judged: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
        for row in await connection.execute(verdicts):
            judged[row.model, row.release].append(Verdict(**row._mapping))
    return [Release(**row._mapping, verdicts=tuple(judged[row.model, row.release])) for row in found]
