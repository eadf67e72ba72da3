"""`python -m store write`: the process that takes records to the database."""

import argparse
import asyncio
import signal

from cli.progress import Progress
from contracts import layout
from store.command_line import places
from store.writing.state import only_writer
from store.writing.writer import Writer


def run(options: argparse.Namespace) -> int:
    """Write until SIGTERM or Ctrl-C, or once; return 0."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    folder, stop, say = places.spool(options), asyncio.Event(), Progress().say
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with only_writer(folder):
        async with places.database(options) as database:
            writer = Writer(database, folder, batch=options.batch, payloads=places.payloads(options), say=say)
            if not options.once:
                say(f"Writing from {layout.shown(folder)} to {database}; Ctrl-C stops it")
            before = writer.state.written
            await writer.run(stop, once=options.once)
            print(f"Wrote {writer.state.written - before:,} records; python -m store status says what waits")
    return 0
