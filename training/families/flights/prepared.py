"""Flights that another command has joined already: `python -m training features build flights` writes such a file."""

from pathlib import Path

import numpy as np
import pandas as pd

from contracts import layout
from training.errors import DataError
from training.families.flights.entities import KEY
from training.families.flights.features import serving

ORDER = ("departure_utc", "origin", "carrier", "flight")
_TEXTS, _TIMES = KEY, ("departure", "departure_utc")


def read(path: Path) -> pd.DataFrame:
    """Read flights with all that a model is given of them, in the order of their departures.

    Raises:
        DataError: it is no such file, or something lacks in it.
    """
    hint = "python -m training features build flights"
    try:
        found = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no {layout.shown(path)}", hint=hint) from error
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        why = str(error).splitlines()[0]
        raise DataError(f"{layout.shown(path)} is no Parquet file", note=why, hint=hint) from error
    wanted = (*_TEXTS, *_TIMES, *serving.RANGES, "late")
    if lacking := [name for name in wanted if name not in found]:
        raise DataError(f"{layout.shown(path)} has no column {', '.join(lacking)}", hint=hint)
    if not len(found):
        raise DataError(f"{layout.shown(path)} has no rows", hint=hint)
    for name in serving.RANGES:
        found[name] = _numbers(found[name], path)
    for name in (*_TEXTS, *_TIMES, "late"):
        if found[name].isna().any():
            raise DataError(f"{layout.shown(path)} lacks {name} in {found[name].isna().sum():,} of its rows", hint=hint)
    return found.sort_values([*ORDER], kind="stable", ignore_index=True)


def _numbers(values: "pd.Series", path: Path) -> "pd.Series":
    if values.dtype.kind not in "iuf":
        raise DataError(f"{values.name} in {layout.shown(path)} is {values.dtype}, not a number")
    low, high = serving.RANGES[str(values.name)]
    found = values.astype(np.float64)
    if (outside := found.notna() & ~found.between(low, high)).any():
        raise DataError(
            f"{values.name} in {layout.shown(path)} is {found[outside].iloc[0]:g}, outside of {low:g} to {high:g}",
            note=f"in {outside.sum():,} of its rows; serving refuses such a value",
        )
    return found
