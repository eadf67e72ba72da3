"""What a family says of its features, in its folder's feature_views.py, and where the files of it lie.

data/interim/FAMILY/ROWS.parquet       what happened, a row each: what is trained on
data/interim/FAMILY/TABLE.parquet      a table of features: its key, its time, `known`, its values
data/processed/FAMILY/ROWS.parquet     the same rows, each with the features that were known at its moment
artifacts/features/FAMILY/             the registry, and what serves on one machine: online.db
"""

import importlib
from pathlib import Path

from contracts import layout
from training import families
from training.errors import FeatureError
from training.families import FAMILIES, Features

KNOWN = "known"  # the column of a table of features with the moment from which on a row is known, a timestamp in UTC


def of(family: str) -> Features:
    """Load what a family says of its features.

    Raises:
        FeatureError: it has none.
    """
    if not _has(family):
        raise FeatureError(
            f"{family} has no features: there is no feature_views.py in its folder",
            note=f"families that have: {', '.join(filter(_has, FAMILIES)) or 'none'}",
        )
    found: Features = importlib.import_module(f"{FAMILIES[family]}.feature_views").FEATURES
    return found


def rows(family: str, features: Features) -> Path:
    """Return where the rows lie."""
    return layout.data() / "interim" / family / f"{features.rows}.parquet"


def table(family: str, name: str) -> Path:
    """Return where a table of features lies."""
    return tables(family) / f"{name}.parquet"


def tables(family: str) -> Path:
    """Return the folder of the tables of features."""
    return layout.data() / "interim" / family


def joined(family: str, features: Features) -> Path:
    """Return where the rows with their features lie."""
    return layout.data() / "processed" / family / f"{features.rows}.parquet"


def home(family: str) -> Path:
    """Return the folder of the registry, and of the online store of one machine."""
    return layout.artifacts() / "features" / family


def _has(family: str) -> bool:
    folder = Path(families.__file__).parent / FAMILIES[family].rpartition(".")[2]
    return (folder / "feature_views.py").is_file()
