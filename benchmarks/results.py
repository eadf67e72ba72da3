"""Where raw figures are kept, each with where it comes from.

A result file is one JSON object: `schema`; `what`, the command; `origin`, see `origin.py`; and what that command found.
Those that `report` and `compare` read have `measurements`, a list of {what tells it from the others…,
"rounds": [{figure: a number}, …]}.
"""

import json
import time
from pathlib import Path
from typing import Any

from benchmarks import origin
from benchmarks.errors import MeasurementError
from benchmarks.origin import Began
from contracts import layout
from contracts.files import whole

SCHEMA = 1


def directory() -> Path:
    """Return the folder of all results; make it if need be."""
    made = layout.artifacts() / "benchmarks"
    made.mkdir(parents=True, exist_ok=True)
    return made


def keep(name: str, summary: dict[str, Any], began: Began | None = None) -> Path:
    """Write the raw figures into a file, and print them as the last line, for machines.

    Returns:
        The file.
    """
    record = write(name, summary, began)
    print(f"Kept in {layout.shown(record)}")
    print(json.dumps(summary))
    return record


def write(name: str, summary: dict[str, Any], began: Began | None = None) -> Path:
    """Write the raw figures into a file, with where they come from; return it.

    Args:
        began: When the measurement did; its `versions` may be in the summary.
    """
    record = directory() / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    told = {key: value for key, value in summary.items() if key != "versions"}
    found = {"schema": SCHEMA, "what": name, "origin": origin.describe(began, summary.get("versions")), **told}
    whole.write(record, json.dumps(found, indent=1) + "\n")
    return record


def read(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        MeasurementError: there is none, or it is none, or of a later schema.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MeasurementError(f"{layout.shown(path)} is no result: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("schema"), int):
        raise MeasurementError(f"{layout.shown(path)} is no result that says where it comes from")
    if found["schema"] > SCHEMA:
        raise MeasurementError(f"{layout.shown(path)} is of schema {found['schema']}, this reads up to {SCHEMA}")
    return found
