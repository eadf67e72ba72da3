"""The drill of `deploy drill` through the gateway: nothing may fail, whatever happens to the servers behind it.

Each server serves a copy of the model repository of its own. A new version, a bad one, a roll back, a worker killed,
the server killed: done to every server in turn, while our client asks through the gateway. With one server its callers
wait out the restart; others with a deadline of a second may get 503 with `Retry-After` meanwhile, and nothing else.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.gateway import hurried, started
from benchmarks.gateway.hurried import Hurried
from benchmarks.gateway.started import Gateway
from cli.progress import bar
from cli.tables import console
from clients import Client, ClientError, TransportOptions
from contracts import layout
from deploy.drill import kills, releases, run
from deploy.drill import results as drilled
from deploy.drill.events import Action
from deploy.drill.results import DrillResult
from deploy.drill.run import DrillSettings
from deploy.drill.server_copy import DrillCopy, server_over_a_copy
from deploy.drill.traffic import Traffic
from deploy.errors import DrillError
from deploy.triton.payload import Payload

_DEADLINE_S = {True: 60.0, False: 10.0}  # of the client's requests; where a server is the only one: past its restart
_PATIENCE_S = 60.0  # for a server to answer again


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        hurried: Who asked with short deadlines; None: several servers leave nobody to wait.
    """

    result: DrillResult
    servers: int
    hurried: Hurried | None

    @property
    def findings(self) -> list[str]:
        """What does not hold, in a line each."""
        lost = [f"{event.event}: {event.problem}" for event in self.result.event_results if event.problem]
        return [*lost, *(self.hurried.findings if self.hurried else ())]

    def as_json(self) -> dict[str, Any]:
        """Return the figures as what json.dumps takes."""
        told = {}
        if self.hurried:
            slowest_s = round(hurried.longest_s(self.hurried.told), 3)
            told = {"deadline_s": hurried.TIMEOUT_S, "statuses": self.hurried.statuses, "slowest_s": slowest_s}
        return {**self.result.as_json(), "servers": self.servers, "hurried": told, "findings": self.findings}


def main(options: argparse.Namespace) -> int:
    """Drill, print and keep; return 0 if nothing failed."""
    settings = DrillSettings(model=options.model, requests=options.requests, connections=options.connections)
    outcome = drill(settings, options.servers)
    folder = drilled.save(outcome.result, layout.artifacts() / "drill")
    figures = outcome.as_json()
    kept = results.write("gateway-drill", figures)
    if options.json:
        print(json.dumps(results.plain(figures)))
    else:
        console().print(drilled.table(outcome.result))
        if outcome.hurried:
            told = ", ".join(f"{number:,} got {status}" for status, number in outcome.hurried.statuses.items())
            print(f"Callers with a deadline of {hurried.TIMEOUT_S:g} s: {told}")
        print(f"Kept in {layout.shown(kept)}; the picture, and every request: {layout.shown(folder)}")
        requests = f"{len(outcome.result.sent):,} requests through the gateway, servers behind it: {outcome.servers}"
        print(f"✗ FAILED: {'; '.join(outcome.findings)}" if outcome.findings else f"✓ {requests}: not one failed")
    return 1 if outcome.findings else 0


def drill(settings: DrillSettings, servers: int) -> Outcome:
    """Make all events happen under load.

    Args:
        servers: Behind the gateway, each over a copy of its own.

    Raises:
        DrillError, MeasurementError: nothing is published, or something does not start, or not answer as it should.
    """
    began = datetime.now(UTC)
    with ExitStack() as opened, bar("drill", settings.requests, "requests") as shown:
        copies = [
            opened.enter_context(server_over_a_copy(settings.repository, settings.model, shown.say, settings.device))
            for _ in range(servers)
        ]
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="drill-gateway-")))
        gateway = opened.enter_context(started.gateway(folder, [copy.http for copy in copies]))
        sends = run.choose(copies[0], settings)
        shown.say(f"{settings.connections} connections ask {sends.model} through the gateway, with {sends}")
        connect = partial(_client, gateway, _DEADLINE_S[servers == 1])
        with Traffic({"http": gateway.address}, sends.model, sends.requests, settings.connections, connect) as traffic:
            in_a_hurry = opened.enter_context(Hurried(gateway, sends)) if servers == 1 else None
            events = [(name, partial(_to_each, copies, act, sends), None) for name, act in EVENTS]
            done = run.under_load(traffic, events, settings, shown)
            sent = traffic.sent()
        told = f"{sends}, through the gateway; servers behind it: {servers}"
    result = DrillResult(began, sends.model, settings.connections, tuple(sent), tuple(done), told, retries=True)
    return Outcome(result, servers, in_a_hurry)


def kill_server(copy: DrillCopy) -> str:
    """Kill the server, and wait until its supervisor has started it again.

    Raises:
        DrillError: it has not within a minute.
    """
    before, began = copy.status()["server_restarts"], time.monotonic()
    said = kills.kill_server(copy)
    copy.wait_until("the server is ready again", lambda s: bool(s["ready"]) and s["server_restarts"] > before)
    return f"{said}, ready again after {time.monotonic() - began:.1f} s"


# What is done to each server; not one request may fail.
EVENTS: tuple[tuple[str, Action], ...] = (
    ("new version", releases.publish_new_version),
    ("bad version", releases.publish_bad_version),
    ("roll back", releases.roll_back),
    ("worker killed", kills.kill_worker),
    ("server killed", kill_server),
)


def _to_each(copies: Sequence[DrillCopy], act: Action, sends: Payload) -> str:
    said = []
    for copy in copies:
        said.append(act(copy))
        _wait_for_an_answer(copy, sends)  # before it is the next one's turn
    return "; ".join(said)


def _wait_for_an_answer(copy: DrillCopy, sends: Payload) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with Client(f"http://{copy.http}") as client:
                client.infer(sends.model, sends.requests[0].inputs)
                return
        except ClientError as error:
            if time.monotonic() > until:
                raise DrillError(f"{sends.model} does not answer after {_PATIENCE_S:.0f} s") from error
            time.sleep(0.2)


@contextmanager
def _client(
    gateway: Gateway, timeout_s: float, protocol: str, address: str
) -> Iterator[Callable[[str, Mapping[str, Any]], Mapping[str, Any]]]:
    """Connect as the drill does, but through the client library and the gateway."""
    transport = TransportOptions(headers={"authorization": gateway.authorization})
    with Client(f"{protocol}://{address}", timeout_s=timeout_s, transport=transport) as client:
        yield client.infer
