"""Where raw figures are kept."""

import json
import time
from pathlib import Path
from typing import Any

from contracts import layout


def directory() -> Path:
    """Return the folder of all results; make it if need be."""
    made = layout.artifacts() / "benchmarks"
    made.mkdir(parents=True, exist_ok=True)
    return made


def keep(name: str, summary: dict[str, Any]) -> Path:
    """Write the raw figures into a file, and print them as the last line, for machines.

    Returns:
        The file.
    """
    record = write(name, summary)
    print(f"Kept in {layout.shown(record)}")
    print(json.dumps(summary))
    return record


def write(name: str, summary: dict[str, Any]) -> Path:
    """Write the raw figures into a file; return it."""
    record = directory() / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    record.write_text(json.dumps(summary, indent=2) + "\n")
    return record
