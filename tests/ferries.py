"""A family of tables that nobody trains: ferries, of which a caller knows the line, the pier and the departure.

The boat of a line is found in a rota, its build in a list of boats, and the tide at the pier is the last full hour's.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts import manifest
from contracts.entities import releases
from contracts.entities.declaration import TEXT, AsOf, Declaration, Entity, Fill, Lookup
from tests.small_releases import published

MIDNIGHT = 1383451200  # Sunday, 2013-11-03 00:00 in New York; at 02:00 its clocks are put back to 01:00
HOUR_S = 3600

ENTITIES = Declaration(
    "ferries",
    (
        Entity("line", "text", about="the letter on its bow"),
        Entity("pier", "text", values=("North", "South")),
        Entity("departure", "time", zone="America/New_York"),
        Entity("passengers", "integer", dtype="int32", at_least=0, at_most=500, default=0),
    ),
    (
        Lookup("rota", {"line": "line"}, (Fill("boat", dtype=TEXT, sent=False),), AsOf("departure", "since")),
        Lookup("boats", {"name": "boat"}, (Fill("built", dtype="int32", default=1990), Fill("tonnes", default="nan"))),
        Lookup(
            "tides",
            {"pier": "pier"},
            (Fill("tide", "metres"),),
            AsOf("departure", lag_s=HOUR_S, most_age_s=3 * HOUR_S),
        ),
    ),
)


def tables() -> dict[str, Mapping[str, NDArray[Any]]]:
    """Line A has had two boats, one of unknown weight; the North pier has ten hours of tides, the South three."""
    return {
        "rota": {
            "line": np.array(["A", "A", "B"]),
            "since": np.array([0, MIDNIGHT, 0]),
            "boat": np.array(["Ada", "Bea", "Ada"]),
        },
        "boats": {
            "name": np.array(["Ada", "Bea"]),
            "built": np.array([1980, 2001]),
            "tonnes": np.array([100.5, np.nan]),
        },
        "tides": {
            "pier": np.array(["North"] * 10 + ["South"] * 3),
            "time": MIDNIGHT + HOUR_S * np.array([*range(10), *range(3)]),
            "metres": np.arange(13) / 2,
        },
    }


def released(root: Path, version: int = 1) -> Path:
    """Publish a version of `net` that declares them and has their tables: its directory."""
    directory = published(root, version)
    releases.write(tables(), directory)
    release = replace(manifest.read(directory), entities=ENTITIES, files=manifest.files_of(directory))
    manifest.write(release, directory)
    return directory
