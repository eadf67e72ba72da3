"""What came out, with its evidence; of a winner a change that can be reviewed, a patch of the configurations in git."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.limit import cores
from benchmarks.results import Machine
from benchmarks.tuning import settings_of_model
from benchmarks.tuning.search import Found, Search
from contracts import layout
from contracts.files import whole


@dataclass(frozen=True)
class Written:
    """Where it lies."""

    patch: Path | None  # for `git apply`; none: nothing beats today's settings
    evidence: Path  # as people read it; the same as JSON beside it
    verdict: Sequence[str]  # as it is told, a line each


def write(search: Search, found: Found, compared: Mapping[str, Any], changes: Sequence[str], folder: Path) -> Written:
    """Write the evidence, and the patch if there are changes, into the new folder.

    Args:
        compared: The best beside today's settings; empty: it is today's settings.
        changes: What the patch changes, as people read it.

    Raises:
        MeasurementError: a setting has no place in a configuration's text.
    """
    folder.mkdir(parents=True)
    patch, evidence = folder / "settings.patch" if changes else None, folder / "evidence.md"
    verdict = [*changes] or [_unbeaten(found, compared)]
    if patch:
        whole.write(patch, "".join(_diff(search, found, name) for name in found.best))
    figures = {
        "model": search.model,
        "release": f"{search.release.network}/{search.release.version}",
        "study": search.name,
        "objective": asdict(search.objective),
        "machine": asdict(Machine.this()),
        "verdict": verdict,
        "search": asdict(found),
        "compared": compared,
    }
    whole.write(folder / "evidence.json", json.dumps(results.plain(figures), indent=2) + "\n")
    whole.write(evidence, _evidence(search, found, compared, verdict))
    return Written(patch, evidence, verdict)


def _unbeaten(found: Found, compared: Mapping[str, Any]) -> str:
    if not compared:
        return f"✓ Nothing beats today's settings: {found.today:,.0f} requests/s within the objective"
    return f"✓ Nothing beats today's settings for sure: the best, in shares of them: {_spread(compared)}"


def _spread(compared: Mapping[str, Any]) -> str:
    if (ratio := compared["throughput"]) is None:
        return f"holds it in {compared['held']} of {len(compared['winner'])} rounds, today's in none"
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} … {ratio['high']:.3f})"


def _diff(search: Search, found: Found, name: str) -> str:
    """Return the change of one model's configuration: of git's file, which the next release is made from."""
    measured = search.space.models[name]
    of = measured.path.relative_to(search.release.models[name])
    path = layout.ROOT / "model_repository" / name / of
    if not path.is_file():  # a brought model's, in a repository of its own
        path = measured.path
    now = settings_of_model.of_text(name, path, path.read_text())
    said = path.relative_to(layout.ROOT) if path.is_relative_to(layout.ROOT) else path
    before, after = (text.splitlines(keepends=True) for text in (now.text, now.changed(found.best[name])))
    return "".join(difflib.unified_diff(before, after, f"a/{said}", f"b/{said}"))


def _evidence(search: Search, found: Found, compared: Mapping[str, Any], verdict: Sequence[str]) -> str:
    beside = f"\nAsked in turn, in shares of what today's settings answer: {_spread(compared)}.\n" if compared else ""
    rate = f" --rate {search.objective.per_s:g}" if search.objective.per_s else ""
    levels = "\n".join(
        f"| {level.connections or 'open loop'} | {level.per_s:,.0f} | {level.p50_ms:.2f} | {level.p99_ms:.2f} "
        f"| {level.cpu_us:,.0f} |"
        for level in found.levels
    )
    return f"""# {search.model}: {search.objective}

Tuned on {cores()} cores, {found.trials} trials ({found.failed} failed); it ended as {found.ended}.

{"".join(f"- {line}" + chr(10) for line in verdict)}{beside}
What was best, by itself:

| connections | requests/s | p50 ms | p99 ms | CPU µs a request |
|---|---|---|---|---|
{levels}

The same again: `python -m benchmarks tune {search.model} --p99-ms {search.objective.p99_ms:g}{rate}`
"""
