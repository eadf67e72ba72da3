"""What the gateway costs a request: Triton alone, the raw door, nginx that asks `/authorize`, the typed door, in turn.

Everything is on: a key with three limits in memory, metrics, the access log, the record, one span of a hundred. One
connection, requests one after another, to a model that adds numbers up. What counts is what a side adds to Triton's
p50 in the same round, and the processor time of its own processes; medians over the rounds.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

from benchmarks import own_server, results
from benchmarks.gateway.loops import Figures, closed, opened
from benchmarks.gateway.sides import MODEL, Side, find_nginx, sides
from benchmarks.rounds import in_turn, median_difference, median_ratio
from cli import tables
from cli.tables import Table, console

KB = 1000
SIZES = {1 * KB: "1 KB", 100 * KB: "100 KB", 10_000 * KB: "10 MB"}
TYPED_MOST = 1 * KB  # numbers as JSON are for small things
_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        values = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", one[:4].sum(keepdims=True))]) for one in values]
"""
_ADDED, _CPU, _TYPED, _CPU_10_MB = 2.0, 1.7, 4.0, 2.5  # times nginx's: what must hold
_OPEN_SHARE = 0.4  # of what Triton alone answers in a closed loop


@dataclass(frozen=True)
class Compared:
    """A side at a size, against Triton alone and nginx in the same rounds."""

    side: str
    size: int
    p50_us: float
    added_us: float
    cpu_us: float
    added_to_nginx: float  # what it adds, of what nginx adds
    cpu_to_nginx: float
    memory_mib: float

    @property
    def finding(self) -> str | None:
        """Say what does not hold."""
        what = f"{self.side} at {SIZES[self.size]}"
        if self.side == "raw" and self.size < 10_000 * KB:
            if self.added_to_nginx > _ADDED:
                return f"{what} adds {self.added_to_nginx:.2f} times what nginx adds, more than {_ADDED}"
            if self.cpu_to_nginx > _CPU:
                return f"{what} takes {self.cpu_to_nginx:.2f} times nginx's CPU, more than {_CPU}"
        if self.side == "raw" and self.size == 10_000 * KB and self.cpu_to_nginx > _CPU_10_MB:
            return f"{what} takes {self.cpu_to_nginx:.2f} times nginx's CPU, more than {_CPU_10_MB}"
        if self.side == "typed" and self.added_to_nginx > _TYPED:
            return f"{what} adds {self.added_to_nginx:.2f} times what nginx adds, more than {_TYPED}"
        return None


def main(options: argparse.Namespace) -> int:
    """Measure, print and keep; 1 if what must hold does not."""
    nginx = find_nginx(options.nginx)
    models = {MODEL: (own_server.CONFIG.format(instances=1), _MODEL)}
    with own_server.serving_python_models(models) as up, sides(up, nginx) as ways:
        found = measure(ways, options.rounds, options.seconds)
        compared = compare(found)
        console().print(table(compared, options.rounds))
        rate = _OPEN_SHARE * 1e6 / median(each.p50_us for each in found["direct", KB])
        open_loop = {
            way.name: asyncio.run(opened(way, KB, rate, 5 * options.seconds)) for way in ways if way.name != "typed"
        }
        console().print(open_table(open_loop, rate))
    findings = [said for each in compared if (said := each.finding)]
    for said in findings:
        console().print(f"does not hold: {said}")
    kept = {"compared": [asdict(each) for each in compared], "open_loop_per_s": rate, "open_loop_us": open_loop}
    results.keep("gateway", {**kept, "findings": findings})
    return 1 if findings else 0


def measure(ways: Sequence[Side], rounds: int, seconds: float) -> dict[tuple[str, int], list[Figures]]:
    """Measure every way at every size, in turn."""
    wanted = {
        (way.name, size): partial(closed, way, size, seconds, look_at_memory=size > 1000 * KB)
        for size in SIZES
        for way in ways
        if way.name != "typed" or size <= TYPED_MOST
    }
    return in_turn(wanted, rounds)


def compare(found: Mapping[tuple[str, int], Sequence[Figures]]) -> list[Compared]:
    """Compare each side with Triton alone, and with nginx, round by round."""
    compared = []
    for (side, size), figures in found.items():
        direct, nginx = ([each.p50_us for each in found[name, size]] for name in ("direct", "nginx"))
        p50, cpu = [each.p50_us for each in figures], [each.cpu_us for each in figures]
        added, of_nginx = median_difference(p50, direct), median_difference(nginx, direct)
        cpu_to_nginx = median_ratio(cpu, [max(each.cpu_us, 1e-9) for each in found["nginx", size]])
        compared.append(
            Compared(
                *(side, size, median(p50), added, median(cpu), added / of_nginx if of_nginx > 0 else 0.0, cpu_to_nginx),
                max(each.memory_mib for each in figures),
            )
        )
    return compared


def table(compared: Sequence[Compared], rounds: int) -> Table:
    """Lay out what each side adds and takes."""
    title = f"One connection, medians of {rounds} rounds, µs"
    shown = tables.table("", "size", "p50", "adds", "of nginx's", "CPU", "of nginx's", "MiB at most", title=title)
    for each in compared:
        if each.side == "direct":
            shown.add_row(each.side, SIZES[each.size], f"{each.p50_us:,.0f}", "", "", "", "", "")
            continue
        memory = f"{each.memory_mib:,.0f}" if each.memory_mib else ""
        figures = (
            f"{each.added_us:,.0f}",
            f"{each.added_to_nginx:.2f}",
            f"{each.cpu_us:,.0f}",
            f"{each.cpu_to_nginx:.2f}",
        )
        shown.add_row(each.side, SIZES[each.size], f"{each.p50_us:,.0f}", *figures, memory)
    return shown


def open_table(found: Mapping[str, tuple[float, float]], per_s: float) -> Table:
    """Lay out the open loop."""
    shown = tables.table("", "p50", "p99", title=f"Open loop, 1 KB, {per_s:,.0f} requests a second, µs")
    for side, (p50, p99) in found.items():
        shown.add_row(side, f"{p50:,.0f}", f"{p99:,.0f}")
    return shown
