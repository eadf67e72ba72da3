"""`python -m store predictions|show|usage`: what is in the store."""

import argparse
import asyncio
import json
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from cli.tables import console, table
from contracts import layout
from contracts.files import whole
from store import predictions
from store import usage as totals
from store.command_line import places
from store.errors import PayloadError
from store.predictions import Page, Story, Wanted

_SECOND = 1_000_000_000


def run(options: argparse.Namespace) -> int:
    """Print a page of predictions; return 0."""
    page = asyncio.run(_page(options))
    if options.json:
        print(json.dumps(asdict(page), indent=2))
        return 0
    shown = table("time", "request", "model", "release", "arm", "rows", "status", "ms", "label", left=5)
    for row in page.rows:
        told = ", ".join(f"{value}" if name == "label" else f"{name}={value}" for name, value in row.labels.items())
        shown.add_row(
            _moment(row.time), row.id, row.model, row.release or "", row.arm, f"{row.rows:,}", str(row.status),
            f"{row.latency_ms:,.1f}", told,
        )  # fmt: skip
    console().print(shown)
    if page.next:
        print(f"There are more: --after {page.next}")
    elif not page.rows:
        print("There are none; what is new may wait in the spool: python -m store status")
    return 0


def show(options: argparse.Namespace) -> int:
    """Print all that is known of a request, and save its inputs; return 0."""
    story = asyncio.run(_story(options))
    print(json.dumps(asdict(story), indent=2, ensure_ascii=False)) if options.json else _print(story)
    if options.save:
        print(f"Its inputs are in {layout.shown(options.save)}")
    return 0


def usage(options: argparse.Namespace) -> int:
    """Print sums; return 0."""
    found = asyncio.run(_usage(options))
    if options.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
        return 0
    names = [name for name in totals.BY if name in options.by]
    shown = table(*names, "requests", "rows", "failed", left=len(names))
    for row in found:
        shown.add_row(
            *(getattr(row, n) or "–" for n in names), *(f"{n:,}" for n in (row.requests, row.rows, row.failed))
        )
    console().print(shown)
    return 0


async def _page(options: argparse.Namespace) -> Page:
    wanted = Wanted(
        model=options.model, key=options.key, release=options.release, arm=options.arm,
        caller_id=options.caller_id, since=_ns(options.since),
        until=_ns(options.until and options.until + timedelta(days=1)), failed=options.failed,
        labelled=options.labelled,
    )  # fmt: skip
    async with places.database(options) as database:
        return await predictions.page(database, wanted, after=options.after, limit=options.limit)


async def _story(options: argparse.Namespace) -> Story:
    async with places.database(options) as database:
        story = await predictions.story(database, options.request)
    if options.save:
        if story.prediction is None or story.prediction.payload is None:
            raise PayloadError(f"the whole inputs of {options.request!r} were not kept", note="only a sample is")
        whole.write(options.save, await places.payloads(options).read(story.prediction.payload), mode=0o600)
    return story


async def _usage(options: argparse.Namespace) -> list[totals.Usage]:
    days = {"since": str(options.since or ""), "until": str(options.until or "9999")}
    async with places.database(options) as database:
        return await totals.totals(database, by=options.by, key=options.key, **days)


def _print(story: Story) -> None:
    shown = table("", "", left=2, show_header=False, box=None)
    if (known := story.prediction) is None:
        shown.add_row("request", "not known: its record has not come yet, or was removed")
    else:
        for name, value in asdict(known).items():
            if value not in (None, {}):
                shown.add_row(name, _moment(value) if name == "time" else _text(value))
    for label in story.labels:
        by = f" by {label.key}" if label.key else ""
        shown.add_row(f"label {label.name}", f"{_moment(label.time)}{by}: {_text(label.value)}")
    for event in story.events:
        shown.add_row(f"event {event.name}", f"{_moment(event.time)}: {_text(event.value)} {_text(event.data or '')}")
    console().print(shown)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _moment(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds // _SECOND, UTC):%Y-%m-%d %H:%M:%S}"


def _ns(day: date | None) -> int | None:
    return None if day is None else int(datetime.combine(day, time(), UTC).timestamp()) * _SECOND
