"""What the requests of a drill say of its events: figures, a table, a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from cli import plots, tables
from cli.plots import BLUE, GREEN, GREY, VERMILION
from cli.tables import Table, console
from cli.terminal import Rows
from contracts import layout
from deploy.drill.traffic import SentRequest

_COLOURS = {"http": BLUE, "grpc": GREEN}
_PROTOCOLS = {"http": "HTTP", "grpc": "gRPC"}


@dataclass(frozen=True)
class Event:
    """Something that was done to the server; times in seconds since the traffic began."""

    name: str
    start_s: float
    end_s: float  # it is done, and every connection is answered again
    limit_s: float | None  # for the recovery; None: no request may fail
    detail: str = ""
    problem: str = ""  # why it did not happen as it should


@dataclass(frozen=True)
class EventResult:
    """What an event cost the clients, by the requests between the middles of the quiet times around it.

    Attributes:
        gap_ms: The longest time that a connection had no right answer while it happened.
        gap_all_ms: The same, of all connections together.
        recovery_s: From its start until the last connection had a right answer with no failure after it; None: never.
        p99_before_ms, p99_during_ms, p99_after_ms: Of the right answers; None without any.
    """

    event: str
    requests: int
    failures: int
    errors: dict[str, int]  # {what it said: how often}
    gap_ms: float
    gap_all_ms: float
    p99_before_ms: float | None
    p99_during_ms: float | None
    p99_after_ms: float | None
    recovery_s: float | None
    limit_s: float | None
    detail: str
    problem: str  # "": it held

    @property
    def held(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class DrillResult:
    """A drill that was run."""

    began: datetime
    model: str  # that the requests went to
    connections: int
    sent: tuple[SentRequest, ...]  # in the order that they ended
    events: tuple[Event, ...]
    payload: str = ""  # what was in the requests, and what the answers were compared with
    retries: bool = False  # of the clients; without, every failure shows

    @cached_property
    def event_results(self) -> list[EventResult]:
        """What each event cost, in their order."""
        middles = [(one.end_s + other.start_s) / 2 for one, other in pairwise(self.events)]
        last_s = max(self.sent[-1].end_s, self.events[-1].end_s)
        spans = pairwise([0.0, *middles, last_s])
        return [
            _event_result(self, event, start_s, end_s)
            for event, (start_s, end_s) in zip(self.events, spans, strict=True)
        ]

    @property
    def passed(self) -> bool:
        return all(found.held for found in self.event_results)

    def as_json(self) -> dict[str, Any]:
        """Return the figures as what json.dumps takes."""
        return {
            "passed": self.passed,
            "began": self.began.isoformat(timespec="seconds"),
            "model": self.model,
            "connections": self.connections,
            "sent": self.payload,
            "retries": self.retries,
            "requests": len(self.sent),
            "failures": sum(found.failures for found in self.event_results),
            "events": [asdict(found) for found in self.event_results],
        }

    def verdict(self) -> str:
        """Say in one line whether the drill passed, and if not, why."""
        load = f"{len(self.sent):,} requests over {self.connections} connections"
        if not self.passed:
            reasons = "; ".join(f"{f.event}: {f.problem}" for f in self.event_results if f.problem)
            return f"FAILED after {load}: {reasons}. Sent: {self.payload}"
        free = ", ".join(f.event for f in self.event_results if f.limit_s is None)
        back = "".join(
            f"; {f.event}: back after {f.recovery_s:.1f} s" for f in self.event_results if f.limit_s is not None
        )
        return f"Passed: {load}; not one failed around {free}{back}. Sent: {self.payload}"


def table(result: DrillResult) -> Table:
    """Lay out the events, a row each."""
    shown = tables.table(
        "event", "requests", "failures", "longest gap ms,\none connection", "\nall", "p99 ms\nbefore", "\nduring",
        "\nafter", "recovered\nafter s", "limit s", "", caption=f"Sent: {result.payload}",
    )  # fmt: skip
    for f in result.event_results:
        limit = "0 failures" if f.limit_s is None else f"{f.limit_s:g}"
        recovered = "never" if f.recovery_s is None else f"{f.recovery_s:.2f}"
        shown.add_row(
            f.event, f"{f.requests:,}", f"{f.failures:,}", f"{f.gap_ms:.0f}", f"{f.gap_all_ms:.0f}",
            *("—" if p99 is None else f"{p99:.0f}" for p99 in (f.p99_before_ms, f.p99_during_ms, f.p99_after_ms)),
            recovered, limit, tables.mark(f.held),
        )  # fmt: skip
    return shown


def show(result: DrillResult, folder: Path) -> None:
    """Print the table, the verdict, and where `save` put the rest."""
    console().print(table(result))
    print(result.verdict())
    print(f"The picture, and every request: {layout.shown(folder)}")


def save(result: DrillResult, root: Path) -> Path:
    """Write every request, the figures and the picture into a new folder of `root`; return that."""
    folder = root / result.began.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    with (folder / "requests.csv").open("w", newline="") as file:
        rows = Rows(file)
        rows.write(["connection", "protocol", "start_s", "end_s", "error"])
        for r in result.sent:
            rows.write([r.connection, r.protocol, f"{r.start_s:.6f}", f"{r.end_s:.6f}", r.error])
    (folder / "drill.json").write_text(json.dumps(result.as_json(), indent=2) + "\n")
    _draw(result, folder / "drill.png")
    return folder


def _event_result(result: DrillResult, event: Event, start_s: float, end_s: float) -> EventResult:
    requests = [request for request in result.sent if start_s <= request.end_s <= end_s]
    right = [request for request in requests if not request.error]
    errors = [request.error for request in requests if request.error]
    connections = [[r for r in requests if r.connection == number] for number in range(result.connections)]
    recoveries_s = [_recovered_s(event, own) for own in connections]
    recovery_s = None if None in recoveries_s else max(s for s in recoveries_s if s is not None)
    gaps_ms = [
        _longest_gap_ms(event, [start_s, *(r.end_s for r in own if not r.error), end_s])
        for own in [*connections, right]
    ]
    return EventResult(
        event=event.name,
        requests=len(requests),
        failures=len(errors),
        errors={error: errors.count(error) for error in dict.fromkeys(errors)},
        gap_ms=max(gaps_ms),
        gap_all_ms=gaps_ms[-1],
        p99_before_ms=_p99_ms([r for r in right if r.end_s < event.start_s]),
        p99_during_ms=_p99_ms([r for r in right if event.start_s <= r.end_s < event.end_s]),
        p99_after_ms=_p99_ms([r for r in right if r.end_s >= event.end_s]),
        recovery_s=recovery_s,
        limit_s=event.limit_s,
        detail=event.detail,
        problem=event.problem or _problem(event, len(requests), errors, recovery_s),
    )


def _problem(event: Event, requests: int, errors: Sequence[str], recovery_s: float | None) -> str:
    if recovery_s is None:
        return (
            f"not every connection was answered again: {errors[-1]}" if errors else "not every connection was answered"
        )
    if event.limit_s is None:
        return f"{len(errors):,} of {requests:,} requests failed: {errors[0]}" if errors else ""
    return f"back after {recovery_s:.1f} s, and not {event.limit_s:g} s" if recovery_s > event.limit_s else ""


def _recovered_s(event: Event, own: Sequence[SentRequest]) -> float | None:
    """Return the seconds from the event to a connection's first right answer after its last failure."""
    failed_s = max((r.end_s for r in own if r.error and r.end_s >= event.start_s), default=event.start_s)
    answered_s = min((r.end_s for r in own if not r.error and r.end_s >= failed_s), default=None)
    return None if answered_s is None else answered_s - event.start_s


def _longest_gap_ms(event: Event, moments_s: Sequence[float]) -> float:
    """Return the longest gap between right answers of those that the event is a part of."""
    gaps = [other - one for one, other in pairwise(moments_s) if other >= event.start_s and one <= event.end_s]
    return 1000 * max(gaps)


def _p99_ms(requests: Sequence[SentRequest]) -> float | None:
    latencies = sorted(request.latency_s for request in requests)
    return 1000 * latencies[math.ceil(0.99 * len(latencies)) - 1] if latencies else None


def _draw(result: DrillResult, path: Path) -> None:
    """Draw every request's latency over time, the errors in red, the events marked."""
    from matplotlib.ticker import LogFormatter

    with plots.figure(14, 7) as picture:
        axes = picture.subplots()
        for protocol, colour in _COLOURS.items():
            right = [r for r in result.sent if r.protocol == protocol and not r.error]
            _dots(axes, right, marker=".", markersize=3, color=colour, label=_PROTOCOLS[protocol])
        failed = [r for r in result.sent if r.error]
        _dots(axes, failed, marker="x", markersize=7, color=VERMILION, label=f"errors ({len(failed):,})")
        slanted: dict[str, Any] = {"rotation": 35, "rotation_mode": "anchor", "fontsize": 9, "va": "bottom"}
        for event, found in zip(result.events, result.event_results, strict=True):
            axes.axvspan(event.start_s, event.end_s, color=GREY, alpha=0.25, linewidth=0)
            recovered = "" if event.limit_s is None else f", recovered in {_seconds(found.recovery_s)}"
            text = f"{event.name}\n{found.failures:,} errors{recovered}"
            axes.annotate(text, (event.start_s, 1.02), xycoords=("data", "axes fraction"), **slanted)
        axes.set(yscale="log", xlabel="time [s]", ylabel="request latency [ms]", xlim=(0, None))
        axes.yaxis.set_major_formatter(LogFormatter())  # the usual one writes mathematical text, which is off
        axes.yaxis.set_minor_formatter(LogFormatter())
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
        crashes = "no errors expected" if result.retries else "errors expected during crashes"
        told = f"Upgrades and fault injection under load, {result.model}: retries {_on(result.retries)}; {crashes}"
        picture.suptitle(f"{told}\n{result.verdict()}", fontsize=10, wrap=True)
        picture.savefig(path, dpi=110)


def _on(switch: bool) -> str:
    return "on" if switch else "off"


def _seconds(recovery_s: float | None) -> str:
    return "never" if recovery_s is None else f"{recovery_s:.1f} s"


def _dots(axes: Any, requests: Sequence[SentRequest], **style: Any) -> None:
    axes.plot([r.end_s for r in requests], [1000 * r.latency_s for r in requests], linestyle="none", **style)
