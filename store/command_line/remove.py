"""`python -m store retain|erase`: what is removed by its age, and what somebody wants to have removed."""

import argparse
import asyncio
import json
import time
from dataclasses import asdict, fields

from cli import progress
from store.command_line import places
from store.errors import StoreError
from store.keeping import erasure, retention
from store.keeping.erasure import Erased
from store.keeping.retention import Policy, Removed
from store.migrations import migrating


def retain(options: argparse.Namespace) -> int:
    """Remove what is too old; return 0."""
    policy = Policy(**{each.name: getattr(options, each.name) for each in fields(Policy)})
    if policy == Policy():
        raise StoreError("nothing says for how long anything is kept", hint="as in --predictions 90 --payloads 7")
    removed = asyncio.run(_retain(options, policy))
    if options.json:
        print(json.dumps(asdict(removed)))
    else:
        print(f"{'There are' if options.dry_run else 'Removed'} {_numbers(asdict(removed))}")
    return 0


def erase(options: argparse.Namespace) -> int:
    """Remove all of some requests, or of a key; return 0."""
    erased = asyncio.run(_erase(options))
    if options.json:
        print(json.dumps(asdict(erased)))
    else:
        print(f"Erased {_numbers(asdict(erased))}; records on their way will be left out")
        print("Backups of before hold them: restore those with --erasures-of, or make another and remove them")
    return 0


async def _retain(options: argparse.Namespace, policy: Policy) -> Removed:
    payloads, now = places.payloads(options), time.time_ns()
    async with places.database(options, wait_s=places.PATIENCE_S) as database:
        await migrating.prepare(database)
        found = await retention.overdue(database, payloads, policy, now)
        if options.dry_run:
            return found
        with progress.bar("removing", max(1, sum(asdict(found).values()) - found.payloads)) as bar:
            return await retention.retain(database, payloads, places.spool(options), policy, now, bar.advance)


async def _erase(options: argparse.Namespace) -> Erased:
    kind: erasure.Kind = "key" if options.key else "request"
    total = Erased()
    async with places.database(options, wait_s=places.PATIENCE_S) as database:
        await migrating.prepare(database)
        for name in options.request or [options.key]:
            done = await erasure.erase(database, places.payloads(options), places.spool(options), kind, name)
            total = Erased(**{key: value + getattr(done, key) for key, value in asdict(total).items()})
    return total


def _numbers(counted: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counted.items())
