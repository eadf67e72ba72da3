"""`python -m benchmarks report`: a result as one page that needs nothing else, and as Markdown with its pictures."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results
from benchmarks.reporting import measurements
from benchmarks.reporting.measurements import LIMIT, Measurement, Result
from benchmarks.rounds import Interval, doubts
from contracts import layout
from contracts.files import whole

_FOLDER = Path(__file__).parent
CAPTIONS = {
    "throughput-and-tail": "Right and down is better. A line begins at one connection; the numbers are of connections.",
    "share-of-the-limit": "The dashed line: the same steps and graph, called directly in a process a core, no server.",
    "latencies": "A line that stays low to the right has no tail. Wherever it jumps, some callers wait that long.",
    "cpu": "Grey: the same called directly, which costs least, and this server with a model that does nothing.",
}


@dataclass(frozen=True)
class Row:
    """One system, in the table of a model; medians of the rounds, with 95 % intervals."""

    system: str
    label: str
    per_s: Interval
    share: Interval | None  # of the limit
    p99_ms: Interval
    cpu_us: Interval
    alone_p50_ms: Interval  # at one connection
    cost: float | None  # of a million samples, at the price that was given


def main(options: argparse.Namespace) -> int:
    """Write the page, the Markdown and the pictures."""
    from benchmarks.reporting import pictures  # matplotlib takes half a second

    result = measurements.read(options.result or measurements.newest("peers"))
    folder = results.made(options.folder or results.directory() / f"report-{result.path.stem}")
    price = options.price_per_core_hour
    for task in result.tasks:
        for name, draw in pictures.PICTURES.items():
            whole.write(folder / f"{task}-{name}.png", pictures.png(draw, result, task))
    drawn = {
        (task, name): pictures.svg(draw, result, task)
        for task in result.tasks
        for name, draw in pictures.PICTURES.items()
    }
    for template, file in (("page.html.j2", "report.html"), ("page.md.j2", "report.md")):
        whole.write(folder / file, rendered(template, result, price, drawn))
    print(f"The page: {layout.shown(folder / 'report.html')}; as Markdown: {layout.shown(folder / 'report.md')}")
    return 0


def circumstances(result: Result) -> list[str]:
    """Say where, when and how it was measured."""
    origin, told = result.origin, result.told
    machine, commit = origin.get("machine") or {}, origin.get("commit") or "unknown"
    before, after = (f"{origin[name][0]:.1f}" if origin.get(name) else "?" for name in ("load_before", "load_after"))
    others, shown = result.others, "on a machine that nobody described"
    if machine:
        shown = f"{machine['cpu']}, {machine['cores']} cores{', a virtual machine' if machine.get('virtual') else ''}"
    seconds = f"{told['seconds']:g}" if "seconds" in told else "?"
    found = [
        shown,
        f"load {before} before and {after} after",
        "" if others is None else f"others took {others:.0%} of the CPU meanwhile (median)",
        f"{origin.get('began') or '?'} to {origin.get('ended') or '?'}",
        f"commit {commit}{' with changes beside it' if origin.get('dirty') else ''}",
        f"medians of {result.rounds} interleaved rounds of {seconds} s, 95 % intervals over the rounds",
        "generator, servers and models share the cores",
    ]
    return [line for line in found if line]


def warnings(result: Result) -> list[str]:
    """Say what speaks against the figures, and what is not among them."""
    found = [f"{told}." for told in (doubts(result.rounds),) if told]
    if (result.others or 0) > results.NOISY:
        found.append(f"Others took {result.others:.0%} of the CPU: shares of the limit are not to be trusted.")
    for one in result.told.get("failed", ()):
        why = str(one["why"]).partition("\n")[0]
        found.append(f"{one['task']}: {one.get('label', one['system'])} is left out: {why}")
    return [line[0].upper() + line[1:] for line in found]


def rows(result: Result, task: str, price: float | None = None) -> list[Row]:
    """Return the systems of a model, the one that answers most first.

    Args:
        price: Of an hour of one core.
    """
    found = []
    for one in result.of(task, result.most_connections(task)):
        alone = result.one(task, one.system, min(each.connections for each in result.measurements)) or one
        found.append(
            Row(
                one.system,
                result.label(one.system),
                one.median("per_s"),
                result.share(one),
                one.median("p99_ms"),
                one.median("cpu_us"),
                alone.median("p50_ms"),
                cost_of_a_million(one, price) if price is not None else None,
            )
        )
    return sorted(found, key=lambda row: -row.per_s.median)


def cost_of_a_million(one: Measurement, price: float) -> float:
    """Return what the CPU of a million samples costs: 10⁶ × µs a sample, as hours of a core, at a price an hour."""
    return one.median("cpu_us").median / 3600 * price


def rendered(template: str, result: Result, price: float | None, drawn: dict[tuple[str, str], str]) -> str:
    """Fill a template with a result."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(
        result=result,
        title="Speed: this server, its peers and the limits" if result.what == "peers" else result.what,
        circumstances=circumstances(result),
        warnings=warnings(result),
        tasks={task["name"]: task for task in result.told.get("tasks", ())},
        rows={task: rows(result, task, price) for task in result.tasks},
        systems=result.told.get("systems", ()),
        searches=result.told.get("searches", ()),
        price=price,
        drawn=drawn,
        captions=CAPTIONS,
        limit=LIMIT,
    )
