"""`python -m benchmarks peers`: this project, its peers and the limits of the machine, in one run."""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.errors import MeasurementError
from benchmarks.peers import run, search, task, wrk
from benchmarks.peers.peer import PEERS, Peer
from benchmarks.peers.run import LIMIT, NOTHING, OURS, System
from benchmarks.peers.task import SHAPES, Task
from benchmarks.releases import released
from benchmarks.results import Began
from benchmarks.rounds import doubts, median_interval, ratios
from cli import progress, tables
from cli.installing.environments import InstallError
from cli.tables import Table, console
from contracts import layout
from contracts.files import whole
from contracts.running import record

SETTINGS = Path(__file__).with_name("settings.json")  # what the last search found: {model: {peer: settings}}


def main(options: argparse.Namespace) -> int:
    """Measure every model, print a table each, and keep all figures."""
    began = Began.now()
    kept: dict[str, Any] = {
        "generator": wrk.described(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "tasks": [],
        "systems": [],
        "searches": [],
        "measurements": [],
        "failed": [],
    }
    for name in {*options.models} - {"large"}:  # what is missing is said now, not an hour later
        released.asked(layout.model_repository(), SHAPES[name].model)
    if record.running():
        print("! A server is up, and takes its share of the machine: python -m deploy down", file=sys.stderr)
    try:
        for name in options.models:
            try:
                _one(name, options, kept)
            except MeasurementError as error:  # of one model: the others are measured all the same
                print(f"✗ {name}: the rest is left out. {error}", file=sys.stderr)
                kept["failed"].append({"task": name, "system": None, "label": "the rest", "why": str(error)})
    except (KeyboardInterrupt, SystemExit):
        print(f"\nStopped. {_left(kept)}. Fewer --models, --peers or --rounds take less time", file=sys.stderr)
        raise
    finally:  # what was measured before something failed, or before Ctrl-C
        if kept["measurements"] or kept["searches"]:
            path = results.write("peers", kept, began)
            print(f"Kept in {layout.shown(path)}")
        if kept["measurements"]:
            print(f"See it: python -m benchmarks report {layout.shown(path)}")
    return 1 if kept["failed"] else 0


def _left(kept: Mapping[str, Any]) -> str:
    if kept["measurements"]:
        return "Whole rounds are kept"
    return f"No round was whole, and {'what was searched alone' if kept['searches'] else 'nothing'} is kept"


def _one(name: str, options: argparse.Namespace, kept: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        Path(scratch).chmod(0o755)  # root's server becomes somebody else
        prepared = task.prepare(SHAPES[name], Path(scratch))
        settings = _settings(prepared, options, Path(scratch), kept)
        systems, stopped = _measure(prepared, settings, options, Path(scratch))
    whole_ones = [system for system in systems if not system.failed]
    console(150).print(table(prepared, whole_ones))
    print(run.neighbours(whole_ones))
    if told := doubts(len(whole_ones[0].found[1])):
        print(told)
    for system in systems:
        if system.failed:
            print(f"✗ {system.label} is left out. {system.failed}")
            kept["failed"].append({"task": name, "system": system.name, "label": system.label, "why": system.failed})
    _keep(prepared, whole_ones, kept)
    if stopped:
        raise stopped


def table(prepared: Task, systems: Sequence[System]) -> Table:
    """Lay out the systems, a row each, the fastest first; medians of the rounds, with 95 % intervals."""
    middle, many = prepared.shape.connections[1:]
    headings = (
        "",
        f"{many}:\nsamples/s (95 %)",
        "of the\nlimit",
        "p99 ms",
        "CPU µs\na sample",
        f"{middle}:\nsamples/s",
    )
    rounds = len(next(iter(systems[0].found.values())))
    title = f"{prepared.shape.name}: {prepared.shape.what}; {rounds} rounds"
    shown = tables.table(*headings, "1:\np50 ms", "CPU µs", title=title)
    limit = next(system for system in systems if system.name == LIMIT)
    most = _figures(limit, "per_s", many)
    for system in sorted(systems, key=lambda each: -median_interval(_figures(each, "per_s", many)).median):
        per_s = median_interval(_figures(system, "per_s", many))
        share = median_interval(ratios(_figures(system, "per_s", many), most)).median
        of_limit = "–" if system.name == NOTHING else f"{share:.0%}"
        some = f"{median_interval(_figures(system, 'per_s', middle)).median:,.0f}" if middle in system.found else "–"
        shown.add_row(
            system.label,
            per_s.spread,
            of_limit,
            f"{median_interval(_figures(system, 'p99_ms', many)).median:.1f}",
            f"{median_interval(_figures(system, 'cpu_us', many)).median:,.0f}",
            some,
            f"{median_interval(_figures(system, 'p50_ms', 1)).median:.2f}",
            f"{median_interval(_figures(system, 'cpu_us', 1)).median:,.0f}",
        )
    return shown


def _settings(
    prepared: Task, options: argparse.Namespace, scratch: Path, kept: dict[str, Any]
) -> dict[Peer, Mapping[str, Any]]:
    """Return the settings of each peer: searched for now, or what the last search found."""
    shown, seconds = progress.Progress(), prepared.shape.times * options.seconds
    known = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
    found: dict[Peer, Mapping[str, Any]] = {}
    for peer in (PEERS[name] for name in options.peers):
        found[peer] = {**peer.start, **known.get(prepared.shape.name, {}).get(peer.name, {})}
        if options.search:
            try:
                found[peer], tries = search.search(peer, prepared, scratch, seconds, shown.say)
            except (MeasurementError, InstallError) as error:
                shown.say(f"{peer.label} is not searched: {error}")
                continue
            entry = {"task": prepared.shape.name, "system": peer.name, "tries": [asdict(one) for one in tries]}
            kept["searches"].append(entry)
            known.setdefault(prepared.shape.name, {})[peer.name] = found[peer]
            whole.write(SETTINGS, json.dumps(known, indent=2, sort_keys=True) + "\n")
    return found


def _measure(
    prepared: Task, settings: Mapping[Peer, Mapping[str, Any]], options: argparse.Namespace, scratch: Path
) -> tuple[list[System], BaseException | None]:
    """Return the systems with their whole rounds, and what came behind the last of them: Ctrl-C, or a failure."""
    shown = progress.Progress()
    stopped: BaseException | None = None
    with ExitStack() as opened:
        with shown.step(f"{prepared.shape.name}: servers") as step:
            systems = run.serve(settings, prepared, scratch, opened, step.now)
            step(f"{sum(not system.failed for system in systems)} systems answer right")
        with shown.step(f"{prepared.shape.name}: rounds", len(systems) * options.rounds) as step:
            try:
                run.run(systems, options.rounds, prepared.shape.times * options.seconds, step)
            except BaseException as error:  # also a failure: what was measured before it holds
                shown.say("Stopping what was started …")
                if not run.cut_to_whole_rounds(systems):
                    raise
                stopped = error
            rounds = len(systems[0].found[1])
            step(f"{rounds} rounds")
        return systems, stopped


def _keep(prepared: Task, systems: Sequence[System], kept: dict[str, Any]) -> None:
    name = prepared.shape.name
    kept["tasks"].append(
        {
            "name": name,
            "what": prepared.shape.what,
            "model": prepared.shape.model,
            "graph_sha256": prepared.graph_sha256,
            "bodies_sha256": prepared.bodies_sha256,
            "requests": len(prepared.questions),
            "body_bytes": [len(question.body) for question in prepared.questions],
        }
    )
    ours = next(system for system in systems if system.name == OURS)
    for system in systems:
        kept["systems"].append({"task": name, "name": system.name, "label": system.label, **system.told})
        for connections, rounds in system.found.items():
            kept["measurements"].append(
                {
                    "task": name,
                    "system": system.name,
                    "connections": connections,
                    "rounds": [asdict(one) for one in rounds],
                    "latency_us": _logarithmic(system.latency_us.get(connections, {})),
                    "ours_per_s_ratio": asdict(
                        median_interval(
                            ratios(_figures(ours, "per_s", connections), _figures(system, "per_s", connections))
                        )
                    ),
                }
            )


def _figures(system: System, figure: str, connections: int) -> list[float]:
    return [getattr(one, figure) for one in system.found[connections]]


def _logarithmic(latency_us: Mapping[int, int]) -> dict[int, int]:
    """Count latencies in steps of 2 %, each named by where it begins: as much as a picture shows."""
    found: dict[int, int] = {}
    for value, count in latency_us.items():
        step = 1.02 ** int(math.log(max(value, 1), 1.02))
        found[round(step)] = found.get(round(step), 0) + count
    return dict(sorted(found.items()))
