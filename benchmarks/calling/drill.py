"""`python -m deploy drill` through the client library: nothing may fail, whatever happens to the server."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clients import Client
from contracts import layout
from deploy.drill import events, results, run


def main(options: argparse.Namespace) -> int:
    """Upgrade and kill a server under load; return 0 only if no request failed."""
    settings = run.DrillSettings(model=options.model, requests=options.requests, connections=options.connections)
    strict = [(name, act, None) for name, act, _ in events.EVENTS]
    result = run.drill(settings, strict, connect, retries=True)
    results.show(result, results.save(result, layout.artifacts() / "drill"))
    return 0 if result.passed else 1


@contextmanager
def connect(protocol: str, address: str) -> Iterator[Callable[[str, Mapping[str, Any]], Mapping[str, Any]]]:
    """Connect as the drill does, but through the client library."""
    with Client(f"{protocol}://{address}") as client:
        yield client.infer
