"""Flights of the test split as files and as requests, for whoever wants to ask about some."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.families.flights.data import DataModule
from training.families.flights.features import serving
from training.families.flights.spec import SPEC

_TEXTS = (*serving.CATEGORIES, "departure")


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
        asked = _requests(flights)
        for index, late in enumerate(flights["late"]):
            request = {name: _plain(values[index, 0]) for name, values in asked.items()}
            (directory / f"{index:05d}.json").write_text(json.dumps({name: [[v]] for name, v in request.items()}))
            rows.writerow([f"{index:05d}.json", SPEC.labels[late]])
    return len(flights)


def requests(count: int) -> dict[str, NDArray[Any]]:
    """Return `count` flights of the test split as the ensemble takes them, spread over its months, in their order."""
    flights = DataModule().part("test")
    return _requests(flights.iloc[np.linspace(0, len(flights) - 1, min(count, len(flights))).astype(int)])


def _requests(flights: pd.DataFrame) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name in _TEXTS:
        texts = flights[name].dt.strftime("%Y-%m-%dT%H:%M") if name == "departure" else flights[name]
        found[name] = np.array([text.encode() for text in texts], np.object_)[:, None]
    for name in serving.RANGES:
        found[name] = flights[name].to_numpy(np.float32)[:, None]
    return found


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else float(value)
