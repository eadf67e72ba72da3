"""Flights of the test split as files and as requests, for whoever wants to ask about some."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from training.families.flights.data import DataModule, asked
from training.families.flights.spec import SPEC


def write(directory: Path, count: int) -> int:
    """Replace `directory` by the first `count` flights of the test split as JSON, and `labels.csv` (file, label).

    Returns:
        How many were written.
    """
    flights = DataModule().part("test").head(count)
    shutil.rmtree(directory, ignore_errors=True)  # what labels.csv lists is all there is
    directory.mkdir(parents=True)
    with (directory / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        columns = asked(flights)
        for index, late in enumerate(flights["late"]):
            request = {name: _plain(values[index, 0]) for name, values in columns.items()}
            (directory / f"{index:05d}.json").write_text(json.dumps({name: [[v]] for name, v in request.items()}))
            rows.writerow([f"{index:05d}.json", SPEC.labels[late]])
    return len(flights)


def requests(count: int) -> dict[str, NDArray[Any]]:
    """Return `count` flights of the test split as the ensemble takes them, spread over its months, in their order."""
    return DataModule().requests(count)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else float(value)
