"""The search for a peer's settings: one setting after another, whatever answers most at the most connections.

It starts at what the peer's documentation recommends (the first value of each). Each setting in turn is tried at each
of its other values, and a value is kept that answers more than 2 % more than the best so far. With more than one pass,
the next begins at what the last one found. All tries are in the result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import MeasurementError
from benchmarks.peers import process
from benchmarks.peers.peer import Peer
from benchmarks.peers.task import Task
from benchmarks.peers.wrk import Generator

GAIN = 1.02


@dataclass(frozen=True)
class Try:
    """Settings, and what they gave."""

    settings: dict[str, Any]
    per_s: float  # 0: it does not serve with them
    p99_ms: float
    said: str = ""  # why it does not


def search(
    peer: Peer, task: Task, scratch: Path, seconds: float, say: Callable[[str], None], passes: int = 1
) -> tuple[dict[str, Any], list[Try]]:
    """Find settings for a peer; return them with all that was tried.

    Raises:
        MeasurementError: it does not serve with what the search starts from.
    """
    generator = Generator(task.questions, peer.wire, scratch / f"{peer.name}-search")
    first = _try(peer, peer.start, task, scratch, generator, seconds)
    if first.said:
        raise MeasurementError(first.said)
    best, tries = first, [first]
    say(f"{peer.label}: {first.per_s:,.0f}/s with {_told(first.settings)}")
    for _ in range(passes):
        for name, values in peer.space.items():
            for value in values:
                settings = {**best.settings, name: value}
                if any(settings == one.settings for one in tries):
                    continue
                tries.append(one := _try(peer, settings, task, scratch, generator, seconds))
                kept = one.per_s > GAIN * best.per_s
                said = one.said or f"{one.per_s:,.0f}/s"
                say(f"{peer.label}: {said} with {name} {value}{', kept' if kept else ''}")
                best = one if kept else best
    return best.settings, tries


def _try(peer: Peer, settings: dict[str, Any], task: Task, scratch: Path, generator: Generator, seconds: float) -> Try:
    try:
        with process.serving(peer, settings, task, scratch / f"{peer.name}.log", generator) as (address, _):
            most = task.shape.connections[-1]
            generator.closed_loop(address, most, seconds / 2)
            load = generator.closed_loop(address, most, seconds)
    except MeasurementError as error:
        return Try(settings, 0.0, 0.0, str(error).splitlines()[0])
    return Try(settings, load.per_s, load.p99_ms)


def _told(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
