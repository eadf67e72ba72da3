"""The run: every system up, one measured while the others are halted, round after round in another order.

What is idle is stopped (SIGSTOP), so that a server with busy housekeeping harms itself alone. Ray takes itself for dead
after that, and is started for each of its turns.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks import limit
from benchmarks.errors import MeasurementError
from benchmarks.limit import InProcess
from benchmarks.peers import ours, process, wire
from benchmarks.peers.peer import Peer, Settings
from benchmarks.peers.process import Tree
from benchmarks.peers.task import Task
from benchmarks.peers.wrk import Generator, Load
from benchmarks.results import NOISY
from cli.installing.environments import InstallError
from cli.progress import Bar

OURS, NOTHING, LIMIT = "ours", "nothing", "in-process"
_LOOK_S = 0.5  # at each size of a call, for which of them answers most


@dataclass(frozen=True)
class Measured:
    """One system at a number of connections in one round."""

    per_s: float  # samples a second
    p50_ms: float
    p90_ms: float
    p99_ms: float
    most_ms: float
    cpu_us: float  # of the server's processes, a sample
    generator_us: float  # of the generator, a sample
    answers: int  # all of them judged
    different: int  # of them
    load: float  # of the machine when the round began: processes that ran or waited, over a minute
    taken_s: float = 0.0  # of the CPU, by server and generator, what warmed them up included
    others: float = 0.0  # share of the machine's CPU that neither server nor generator took, nor was idle


# Of connections and seconds, and the latencies beside.
Measure = Callable[[int, float], tuple[Measured, dict[int, int]]]


@dataclass
class System:
    """What is measured: a server that is up, or the limit."""

    name: str
    label: str
    measure: Measure
    told: Mapping[str, Any]  # settings, wire, versions
    connections: Sequence[int]
    turn: Callable[[], AbstractContextManager[object]] = nullcontext  # in which it may run
    log: Path | None = None  # of what it says
    failed: str = ""  # why it was left out
    found: dict[int, list[Measured]] = field(default_factory=dict)
    latency_us: dict[int, dict[int, int]] = field(default_factory=dict)  # of all rounds

    def once(self, seconds: float) -> None:
        """Measure it at every number of connections, behind a warm-up."""
        with self.turn():
            self.measure(max(self.connections), seconds)  # what is warm is measured
            for connections in self.connections:
                one, latency_us = _watched(partial(self.measure, connections, seconds))
                self.found.setdefault(connections, []).append(one)
                merged = self.latency_us.setdefault(connections, {})
                for value, count in latency_us.items():
                    merged[value] = merged.get(value, 0) + count


def run(systems: Sequence[System], rounds: int, seconds: float, bar: Bar) -> None:
    """Measure all systems, a round each in another order.

    A peer that fails is left out from then on, and says why.

    Raises:
        MeasurementError: it was this project's server, or the limit, that failed.
    """
    order = random.Random(0)  # noqa: S311  # no secret
    for number in range(rounds):
        for system in order.sample(systems, len(systems)):
            bar.now(f"round {number + 1} of {rounds}, {system.label}")
            if not system.failed:
                _take_turn(system, number + 1, seconds)
            bar.advance()


def cut_to_whole_rounds(systems: Sequence[System]) -> int:
    """Leave out what a run that was stopped has of a round that not all have; return how many rounds are left."""
    whole = min(len(system.found.get(max(system.connections), ())) for system in systems if not system.failed)
    for system in systems:
        system.found = {connections: rounds[:whole] for connections, rounds in system.found.items()}
    return whole


def neighbours(systems: Sequence[System]) -> str:
    """Say how much of the machine somebody else took while it was measured."""
    found = sorted(one.others for system in systems for rounds in system.found.values() for one in rounds)
    middle, most = found[len(found) // 2], found[-1]
    said = f"others took {middle:.0%} of the machine's CPU meanwhile (median of {len(found)}), {most:.0%} at most"
    return f"{said}: shares of the limit are not to be trusted" if middle > NOISY else said


def _take_turn(system: System, number: int, seconds: float) -> None:
    try:
        system.once(seconds)
    except MeasurementError as error:
        if system.log is None:
            raise
        system.failed = f"round {number}: {error}\n  it said: {process.said(system.log)}"


def serve(
    peers: Mapping[Peer, Settings], task: Task, scratch: Path, opened: ExitStack, say: Callable[[str], None]
) -> list[System]:
    """Start the limits, this project's server and the peers, each halted once it has answered right.

    Raises:
        MeasurementError: this project's server does not answer right.
    """
    systems = [_limit(task, opened)]
    say("this project's server")
    systems += _ours(task, scratch, opened)
    for peer, settings in peers.items():
        say(peer.label)
        systems.append(_peer(peer, settings, task, scratch, opened))
    return systems


def measured(load: Load, cpu_s: float, machine: float) -> Measured:
    """Put together what a generator saw and what the server took."""
    seen = asdict(load)
    del seen["latency_us"]
    taken_s = cpu_s + 1e-6 * load.generator_us * load.answers
    return Measured(**seen, cpu_us=1e6 * cpu_s / load.answers, load=machine, taken_s=taken_s)


def _limit(task: Task, opened: ExitStack) -> System:
    asked = [question.golden for question in task.questions]  # not others, which may be longer
    one = opened.enter_context(limit.opened(task.repository, task.shape.model, asked=asked))
    all_ = opened.enter_context(limit.opened(task.repository, task.shape.model, limit.cores(), asked=asked))
    rows = _rows(all_)

    def measure(connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
        """Call one at a time for one connection, else in all processes: alone and in batches, whichever is more."""
        load, before_s = machine_load(), _below_s()
        found = [one.measure(1, seconds)] if connections == 1 else [all_.measure(n, seconds / len(rows)) for n in rows]
        best = max(found, key=lambda each: each.per_s)
        alone = found[0]
        made = Measured(
            per_s=best.per_s,
            p50_ms=alone.p50_ms,
            p90_ms=alone.p99_ms,
            p99_ms=alone.p99_ms,
            most_ms=alone.p99_ms,
            cpu_us=min(each.cpu_us for each in found),
            generator_us=0.0,
            answers=round(best.per_s * seconds),
            different=0,
            load=load,
            taken_s=_below_s() - before_s,
        )
        return made, {}

    told = {"processes": limit.cores(), "samples_a_call": rows, "wire": "none: called directly"}
    ends = (task.shape.connections[0], task.shape.connections[-1])
    return System(LIMIT, "in-process limit", measure, told, ends)


def _rows(opened: InProcess) -> list[int]:
    """Look for the size of a call that answers most; return one sample and that one.

    Larger ones are not always better: what is shorter than its neighbours in a batch is made as long.
    """
    found = {count: opened.measure(count, _LOOK_S).per_s for count in limit.ROWS if opened.takes(count)}
    return sorted({1, max(found, key=lambda count: found[count])})


def _ours(task: Task, scratch: Path, opened: ExitStack) -> list[System]:
    up = opened.enter_context(ours.serving(task))
    opened.enter_context(process.guarded(up.tree))
    made, connections = [], task.shape.connections
    questions = {OURS: task.questions, NOTHING: ours.nothing_questions(task)}
    for name, label in ((OURS, "this project"), (NOTHING, "this project, a model that does nothing")):
        generator = Generator(questions[name], wire.TRITON, scratch / f"{name}-requests")
        generator.wait_until_ready(up.http, 60)
        told = {"settings": "as shipped", "wire": wire.TRITON.name, "versions": ours.versions()}
        made.append(System(name, label, _served(generator, up.http, up.tree), told, connections, up.tree.running))
    up.tree.halt()
    opened.callback(up.tree.go_on)  # before it is told to end
    return made


def _peer(peer: Peer, settings: Settings, task: Task, scratch: Path, opened: ExitStack) -> System:
    generator = Generator(task.questions, peer.wire, scratch / f"{peer.name}-requests")
    log = scratch / f"{peer.name}.log"
    told = {"settings": dict(settings), "wire": peer.wire.name, "source": peer.source}
    server = _Started(peer, settings, task, log, generator)
    turn = server.running if peer.halts else server.started
    made = System(peer.name, peer.label, server.measure, told, task.shape.connections, turn, log)
    try:
        made.told = {**told, "versions": process.versions(peer)}
        if peer.halts:
            opened.enter_context(server.started())
            server.tree.halt()
    except (MeasurementError, InstallError) as error:
        made.failed = str(error)
    return made


class _Started:
    """A peer that is up, for the whole run or for one turn."""

    def __init__(self, peer: Peer, settings: Settings, task: Task, log: Path, generator: Generator) -> None:
        self._start = partial(process.serving, peer, settings, task, log, generator)
        self._generator = generator
        self.address, self.tree = "", Tree(0)

    @contextmanager
    def started(self) -> Iterator[None]:
        with self._start() as (self.address, self.tree):
            yield

    def running(self) -> AbstractContextManager[object]:
        return self.tree.running()

    def measure(self, connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
        return _served(self._generator, self.address, self.tree)(connections, seconds)


def _served(generator: Generator, address: str, tree: Tree) -> Measure:
    def measure(connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
        machine, before_s = machine_load(), tree.cpu_s()
        load = generator.closed_loop(address, connections, seconds)
        return measured(load, tree.cpu_s() - before_s, machine), load.latency_us

    return measure


def _watched(measure: Callable[[], tuple[Measured, dict[int, int]]]) -> tuple[Measured, dict[int, int]]:
    """Measure, and see what share of the machine's CPU somebody else took meanwhile."""
    began, busy_s, own_s = time.monotonic(), _busy_s(), time.process_time()
    one, latency_us = measure()
    others_s = _busy_s() - busy_s - (time.process_time() - own_s) - one.taken_s
    share = others_s / (limit.cores() * (time.monotonic() - began))
    return replace(one, others=round(min(max(share, 0.0), 1.0), 3)), latency_us


def _below_s() -> float:
    """Return what processes that this one has started took of the CPU: those of the limit, as servers are halted."""
    return Tree(os.getpid()).cpu_s() - time.process_time()


def _busy_s() -> float:
    """Return the CPU that was not idle since the machine's start, stolen by a hypervisor's other guests included."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def machine_load() -> float:
    """Return how many processes ran or waited, over the last minute."""
    return float(Path("/proc/loadavg").read_text().split()[0])
