"""`python -m deploy status`: a look at the server as a table, once or again and again."""

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta

from rich.console import Group
from rich.live import Live
from rich.text import Text

from cli.tables import console, table
from deploy.running.status import Status, Usage, VersionStatus, WorkDone, as_json, look
from deploy.served import unsealed
from deploy.triton import state

_WIDTH = 100  # where the output is no terminal
_MARKS = {"READY": ("✓", "green"), "LOADING": ("…", "yellow"), "UNLOADING": ("…", "yellow")}
_FAILED, _UNLOADED = ("✗", "red"), ("–", "dim")


def show(status: Status) -> None:
    """Print what the server has done since it was started."""
    console(_WIDTH).print(_table(status))


def watch(every_s: float = 1, *, in_json: bool = False) -> int:
    """Look again and again, until Ctrl-C or the end of the server; return the exit code of the last look, or 1.

    On a terminal the table is drawn anew, with what was done since the look before. Anywhere else each look is a line.
    """
    page, server, before = console(_WIDTH), None, None
    drawn = page.is_terminal and not in_json
    live = Live(console=page, auto_refresh=False)
    with suppress(KeyboardInterrupt):
        with live if drawn else nullcontext():
            while (server := state.running()) is not None:
                now = look(server)
                if drawn:
                    live.update(_table(now, before), refresh=True)
                else:
                    print(json.dumps(as_json(now)) if in_json else _line(now, before), flush=True)
                before = now
                time.sleep(every_s)
        print(json.dumps({"running": False, "ready": False}) if in_json else "No server is up.")
    return before.exit_code if server is not None and before is not None else 1


def _table(status: Status, before: Status | None = None) -> Group:
    """Lay out all that was done or, with `before`, what was done since then, a second."""
    a_second, cpu = ("", "CPU\ns") if before is None else ("/s", "CPU\n%")
    counts = (f"requests\n{a_second}", f"failed\n{a_second}", "queued\nnow", "rows a\nbatch")
    times = ("queue\nms", "compute\nms", "p50\nms", "p95\nms", "p99\nms")
    headings = ("", "model", "v", *counts, *times, "memory\nMB", cpu)
    shown = table(*headings, left=2, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for column in shown.columns:
        column.no_wrap = True
    shown.columns[1].no_wrap, shown.columns[1].overflow = False, "fold"  # a name may be as long as it likes
    for version in status.versions:
        shown.add_row(*_row(version, status, before))
    if status.triton is not None:
        shown.add_row("", Text("tritonserver", "dim"), *[""] * 10, *_used([status.triton], status, before))
    return Group(_headline(status), "", shown, *_remarks(status))


def _row(version: VersionStatus, status: Status, before: Status | None) -> list[str | Text]:
    model = version.model
    mark = Text(*_MARKS.get(model.state, _FAILED if model.failed else _UNLOADED))
    known: list[str | Text] = [mark, Text(model.name), str(model.version or "–")]
    used = _used(version.workers, status, before)
    if version.work is None:
        return [*known, *[""] * 9, *used]
    work, seconds = _done(version, before), status.at_s - before.at_s if before else None
    return [
        *known,
        _count(work.requests, seconds),
        Text(_count(work.failures, seconds), "red" if work.failures else ""),
        str(version.pending),
        _figure(work.average_batch),
        _figure(work.queue_ms),
        _figure(work.compute_ms),
        *(_figure(version.latency_ms.get(quantile)) for quantile in ("p50", "p95", "p99")),
        *used,
    ]


def _done(version: VersionStatus, before: Status | None) -> WorkDone:
    then = {(v.model.name, v.model.version): v.work for v in before.versions} if before else {}
    return (version.work or WorkDone()).since(then.get((version.model.name, version.model.version)))


def _used(processes: Sequence[Usage], status: Status, before: Status | None) -> list[str]:
    """Return memory and CPU of the processes, of one instance of the model each."""
    if not processes:
        return ["", ""]
    memory, cpu_s = f"{sum(p.rss_bytes for p in processes) / 1e6:.0f}", sum(p.cpu_s for p in processes)
    if before is None:
        return [memory, f"{cpu_s:.1f}"]
    then = {p.pid: p.cpu_s for p in before.processes}
    cpu_s -= sum(then.get(p.pid, 0) for p in processes)
    return [memory, f"{cpu_s / (status.at_s - before.at_s) * 100:.0f}"]


def _headline(status: Status) -> Text:
    server = status.server
    word = "ready" if status.ready else server.phase if server.phase != "ready" else "not ready"
    up = f", up {timedelta(seconds=int(status.uptime_s))}" if status.triton else ", ended"
    return Text.assemble(
        (word, "bold green" if status.ready else "bold red"),
        f"  process {server.triton.pid}{up}, restarts: {server.server_restarts} of the server, "
        f"{server.worker_restarts} of workers\n",
        (f"http {server.http}, grpc {server.grpc}, metrics {server.metrics}", "dim"),
    )


def _remarks(status: Status) -> list[Text]:
    """Say what a column has no room for."""
    if not status.versions:
        return [Text("It does not answer.", "red")]
    remarks = []
    for version in status.versions:
        model, failures = version.model, version.failures_by_reason
        if model.state != "READY":
            said = f": {model.reason}" if model.reason else ""
            style = "red" if model.failed else "dim"
            remarks.append(Text(f"{model.name} version {model.version} is {model.state}{said}", style))
        if (work := version.work) and work.cache_hits + work.cache_misses:
            hits, lookups = work.cache_hits, work.cache_hits + work.cache_misses
            remarks.append(Text(f"{model.name} version {model.version}: {hits:,} of {lookups:,} from the cache", "dim"))
        if failures:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in failures.items())
            remarks.append(Text(f"{model.name} version {model.version}: failed {counts}", "dim"))
    for arm in status.arms:
        names = ", ".join(arm.names)
        remarks.append(Text(f"{arm.network}: release {arm.version} stands beside it as {names}", "dim"))
    if status.unsealed:
        remarks.append(Text(unsealed.line(status.unsealed), "yellow"))
    remarks += [Text(str(group), "bold red" if group.failed else "yellow") for group in status.left_out]
    if status.server.memory:
        remarks.append(Text(f"memory: {status.server.memory}", "dim"))
    return [Text(), *remarks] if remarks else []


def _line(status: Status, before: Status | None) -> str:
    parts = []
    for version in status.versions:
        done = _done(version, before)
        seconds = status.at_s - before.at_s if before else None
        p99 = _figure(version.latency_ms.get("p99"))
        a_second = "/s" if before else ""
        parts.append(
            f"{version.model.name} {version.model.version} {version.model.state} "
            f"{_count(done.requests, seconds)}{a_second} {_count(done.failures, seconds)}{a_second} failed p99 {p99} ms"
        )
    return " | ".join([_headline(status).plain.splitlines()[0], *parts])


def _count(number: int, seconds: float | None) -> str:
    return f"{number:,}" if seconds is None else f"{number / seconds:,.0f}"


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
