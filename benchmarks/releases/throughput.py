"""Throughput and latency of servers that are up at the same time, asked in turn with the same requests."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.errors import MeasurementError
from benchmarks.rounds import in_turn
from benchmarks.serving import load
from contracts import golden

CONNECTIONS = (1, 8, 32)
_FIGURES = ("requests/s", "p50 ms", "p99 ms")


def measure(
    servers: Mapping[str, str], version: Path, rounds: int, seconds: float
) -> dict[str, dict[tuple[str, str], list[float]]]:
    """Ask every server at each number of connections, once a round.

    Args:
        servers: {name: host:port of HTTP}.
        version: The directory of the release whose golden requests are sent.
        seconds: Of each measurement.

    Returns:
        {server: {(connections, figure): one a round}}.

    Raises:
        MeasurementError: the release has no golden requests, or a server answers wrong.
    """
    requests = _requests(version)
    ways = {(name, n): None for name in servers for n in CONNECTIONS}
    known = {name: load.with_answers(http, requests) for name, http in servers.items()}
    found = in_turn(
        {(name, n): functools.partial(_ask, servers[name], known[name], n, seconds) for name, n in ways}, rounds
    )
    return {
        name: {
            (f"{n} connections", figure): [of_round[place] for of_round in found[name, n]]
            for n in CONNECTIONS
            for place, figure in enumerate(_FIGURES)
        }
        for name in servers
    }


def _requests(version: Path) -> list[load.Request]:
    """Return the golden requests for the ensemble above a release, or else for its network, without the answers."""
    known = golden.read(version)
    if not known:
        raise MeasurementError(f"{version} has no golden requests", hint="export it again")
    models = {request.model for request in known}
    wanted = next(iter(models - {version.parent.name}), version.parent.name)
    # Servers may have releases of their own: each one's answers are compared with what it said alone.
    return [load.build(replace(request, answers={})) for request in known if request.model == wanted]


def _ask(http: str, requests: list[load.Request], connections: int, seconds: float) -> tuple[float, ...]:
    log = load.closed_loop(http, requests, connections, seconds)
    if bad := int((log.outcome != load.Outcome.OK).sum()):
        raise MeasurementError(f"{bad} of {len(log.outcome)} answers of {http} were wrong or none")
    p50_ms, p99_ms = (1e3 * float(latency) for latency in np.percentile(log.latency_s, (50, 99)))
    return len(log.outcome) / float(log.done_s.max()), p50_ms, p99_ms
