"""The client library of this checkout against that of another one, an older commit's: has it become slower?

Each library calls from worker processes of its own (see `callers.py`), started in its own checkout with the same
Python. Their requests are interleaved, and what is compared is the time that a request takes, alone and among others,
within each round: new/old, as a median with its 95 % interval. An interval that is wide tells nothing; one that begins
above 1 tells of a library that is slower for sure. What counts is all protocols and kinds together, each round's
geometric mean of their ratios: of a dozen intervals, one in four runs would have one above 1 by chance.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks import results
from benchmarks.calling import callers
from benchmarks.calling.callers import KINDS, Arrays, Caller, Question
from benchmarks.calling.interleaved import AT_ONCE, CallerResult, measure, same_way
from benchmarks.errors import MeasurementError
from benchmarks.rounds import Interval, median_interval, ratios
from cli import tables
from cli.tables import Table, console
from clients.settings import Protocol
from contracts import layout

_NEW, _OLD, _ALL = "new", "old", "all"
_MAX_WIDTH, _MAX_LOW = 0.10, 1.00  # of an interval


@dataclass(frozen=True)
class Ratio:
    """The time that a request of the new library takes, of the old one's."""

    way: str  # "grpc, threads", …; or "all"
    at_once: int  # 1: the median latency; else what the throughput makes of it
    time: Interval

    @property
    def finding(self) -> str | None:
        """Say what keeps the new library from being as fast as the old one; None if nothing does, or does not count."""
        if self.way != _ALL:
            return None
        what = f"{self.at_once} at once: {self.time} of the old time"
        if self.time.low > _MAX_LOW:
            return f"{what} is slower"
        return f"{what} is too wide to tell; more --rounds" if self.time.width > _MAX_WIDTH else None


class Worker:
    """A caller in a process of its own; what is asked of it goes there."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def answer(self) -> Arrays:
        return callers.from_json(self._ask("answer"))

    def latency_s(self) -> float:
        return float(self._ask("latency_s"))

    def per_s(self, at_once: int, seconds: float) -> float:
        return float(self._ask("per_s", at_once, seconds))

    def tell(self, *request: object) -> None:
        """Send it a line."""
        self._process.stdin.write(f"{json.dumps(request)}\n".encode())  # type: ignore[union-attr]  # a pipe

    def _ask(self, *request: str | float) -> Any:
        with suppress(BrokenPipeError):  # it has ended, and does not answer either
            self.tell(*request)
        if not (answer := self._process.stdout.readline()):  # type: ignore[union-attr]  # a pipe
            raise MeasurementError("a worker of the client library ended: see above")
        return json.loads(answer)


def report(addresses: Mapping[Protocol, str], question: Question, other: Path, rounds: int, seconds: float) -> int:
    """Measure, print and keep; return 0 if the library is as fast as that of the checkout `other`.

    Raises:
        MeasurementError: there is no client library in `other`, or a worker ended.
    """
    if not (other / "clients" / "__init__.py").is_file():
        raise MeasurementError(
            f"{other} holds no client library", hint="name the root of a checkout: git worktree add DIRECTORY COMMIT"
        )
    measured = measure_libraries(addresses, question, {_NEW: layout.ROOT, _OLD: other.resolve()}, rounds, seconds)
    found = compare_rounds(measured)
    console().print(table(found, f"One request to {question.model}", rounds))
    findings = [ratio.finding for ratio in found if ratio.finding]
    print("\n".join(f"✗ {finding}" for finding in findings) or "✓ It is not slower")
    figures = {
        "model": question.model,
        "ratios": [asdict(ratio) for ratio in found],
        "callers": [asdict(result) for result in measured],
    }
    results.keep("client-against", {"against": layout.shown(other), "findings": findings, **figures})
    return 1 if findings else 0


def measure_libraries(
    addresses: Mapping[Protocol, str], question: Question, checkouts: Mapping[str, Path], rounds: int, seconds: float
) -> list[CallerResult]:
    """Time the libraries of the checkouts, {"new": root, "old": root}, by protocol, from threads and from asyncio.

    Args:
        addresses: host:port of each protocol.
        seconds: Of each measurement.

    Raises:
        MeasurementError: a worker ended, or the libraries do not get the same answer.
    """
    with ExitStack() as opened:
        workers: dict[tuple[str, str], dict[str, Caller]] = {
            (protocol, kind): {
                name: opened.enter_context(_worker(root, f"{protocol}://{address}", kind, question))
                for name, root in checkouts.items()
            }
            for protocol, address in addresses.items()
            for kind in KINDS
        }
        return measure(workers, rounds, seconds)


def compare_rounds(measured: Sequence[CallerResult]) -> list[Ratio]:
    """Compare the new library with the old one, round by round: each way by itself, then all together."""
    ways: dict[str, dict[int, list[float]]] = {}
    for new in (result for result in measured if result.client == _NEW):
        old = same_way(measured, new, _OLD)
        # A request takes the longer, the fewer are answered a second.
        among_others = {n: ratios(old.per_s[n], new.per_s[n]) for n in AT_ONCE}
        ways[f"{new.protocol}, {new.of}"] = {1: ratios(new.p50_us, old.p50_us), **among_others}
    ways[_ALL] = {
        n: [geometric_mean(of_round) for of_round in zip(*(way[n] for way in ways.values()), strict=True)]
        for n in (1, *AT_ONCE)
    }
    return [Ratio(way, n, median_interval(by_round)) for way, found in ways.items() for n, by_round in found.items()]


def table(found: Sequence[Ratio], what: str, rounds: int) -> Table:
    """Lay out the ratios, a row a way."""
    title = f"{what}: the time of a request, new/old (95 %), {rounds} rounds"
    shown = tables.table("", "p50 of one", *(f"{n} at once" for n in AT_ONCE), title=title)
    for way in dict.fromkeys(ratio.way for ratio in found):
        shown.add_row(way, *(str(ratio.time) for ratio in found if ratio.way == way))
    return shown


@contextmanager
def _worker(root: Path, url: str, kind: str, question: Question) -> Iterator[Worker]:
    """Start a worker that calls through the library in the checkout `root`, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-P", callers.__file__],  # -P: the script's own folder is no place to import from
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # a worker that has ended leaves nothing to flush
        start_new_session=True,  # Ctrl-C is ours: a worker ends when its standard input does
    ) as process:
        worker = Worker(process)
        worker.tell(url, kind, question.model, callers.as_json(question.inputs), question.outputs)
        yield worker
