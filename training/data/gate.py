"""A gate of the pipeline: data that is not as expected stops it, by name, and what was there before stays."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cli.installing.tool_environments import programs
from contracts import layout
from training.data import parameters, places, verdict, webhook
from training.data.folders import replaced
from training.data.staged import Gate
from training.data.verdict import Verdict
from training.errors import DataError, GateError

PASSED, FIGURES = "passed", "figures.json"  # of a gate that was passed
_SHOWN = 10  # failed expectations


def ask(family: str, gate: Gate, params: Path | None = None) -> Verdict:
    """Have Great Expectations judge a family's data, in its own environment; it is made where it is not there.

    Raises:
        DataError: the data could not be read; why was said on stderr.
    """
    given = (params or parameters.path_of(family)).resolve()
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch:
        result = Path(scratch, "verdict.json")
        command = [str(programs("data") / "python"), "-m", "training.data.expecting", family, gate]
        done = subprocess.run([*command, str(given), str(result)], cwd=layout.ROOT, stdout=sys.stderr, check=False)
        if done.returncode < 0 or done.returncode in (130, 143):
            raise KeyboardInterrupt
        if done.returncode != 0:
            raise DataError(f"the {gate} data of {family} could not be judged", note="what is wrong is said above")
        return verdict.read(result)


def keep(found: Verdict) -> None:
    """Write that the gate was passed, always the same, and the figures of the data, which differ with it.

    What comes next depends on the first alone: other expectations that are met change nothing of the data.
    """
    with replaced(places.of(found.family).gates / found.gate) as folder:
        (folder / PASSED).write_text("passed\n", encoding="utf-8")
        (folder / FIGURES).write_text(json.dumps(found.figures(), indent=2) + "\n", encoding="utf-8")


def stop(found: Verdict, url: str | None) -> GateError:
    """Tell the webhook, where there is one, and return the error that stops the pipeline."""
    lines = [f"{each.name}: {each.told}" for each in found.failed]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more"]
    if url is not None and (reason := webhook.tell(url, found)) is not None:
        lines.append(f"the webhook was not told: {reason}")
    docs = layout.shown(Path(found.docs))
    count = f"{len(found.failed)} of {len(found.outcomes)} expectations"
    return GateError(
        f"the {found.gate} data of {found.family} did not pass its gate: {count} failed",
        note="\n  ".join(lines),
        hint=f"open {docs}; what was made of the data before is as it was",
    )
