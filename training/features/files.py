"""Parquet files of the feature stages: read with words for what is wrong, written whole or not at all."""

import os
from pathlib import Path

import pandas as pd

from contracts import layout
from training.errors import FeatureError


def read(path: Path, hint: str) -> pd.DataFrame:
    """Read a file.

    Raises:
        FeatureError: it is not there, or is none.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise FeatureError(f"there is no {layout.shown(path)}", hint=hint) from error
    except ValueError as error:  # pyarrow's errors are
        raise FeatureError(
            f"{layout.shown(path)} is no Parquet file", note=str(error).splitlines()[0], hint=hint
        ) from error


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a file aside, and put it in place in one step: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        frame.to_parquet(aside, index=False)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
