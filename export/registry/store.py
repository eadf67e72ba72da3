"""The store of MLflow's registry: that of the training stage (training/tracking.py), opened with its noise turned off.

It is MLFLOW_TRACKING_URI, or artifacts/mlflow.db.
"""

import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import layout
from export.errors import RegistryError
from training import tracking
from training.errors import TrainingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow would otherwise draw progress bars, print addresses among our output, and try for 4 minutes.
_DEFAULTS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
_NAMED = "the one that MLFLOW_TRACKING_URI names"
_PASSWORD = re.compile(r"//[^/@\s]+@")  # in an address
_FLUSHED = re.compile(r"^\(raised as a result of [^)]*\)")  # SQLAlchemy's first line, before what happened


@contextmanager
def opened(purpose: str) -> Iterator["MlflowClient"]:
    """Open a client of the store; whatever goes wrong there is a RegistryError."""
    _set_defaults()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # A database may want a driver.
    broken = (MlflowException, SQLAlchemyError, TrainingError, sqlite3.Error, OSError, ImportError)
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is raised is told by us
    try:
        yield MlflowClient(tracking.open_store())
    except broken as error:
        raise RegistryError(
            f"cannot {purpose} in MLflow",
            note=_PASSWORD.sub("//", _FLUSHED.sub("", str(error)).strip().partition("\n")[0]),
            hint=_hint(str(error)),
        ) from error


def _hint(said: str) -> str:
    if "\nHint: " in said:  # an error of ours
        return said.rpartition("\nHint: ")[2]
    if "Permission denied" in said:  # MLflow's own words, of a server with accounts
        return "your account needs a grant there, and an administrator gives it: docs/how-to/team-mlflow.md"
    if "not authenticated" in said:  # where files are concerned, MLflow 3.17 decodes passwords as ASCII
        return "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD say who you are; a password is of ASCII alone"
    if "'psycopg'" in said:  # what SQLAlchemy takes postgresql:// for since 2.1
        return "name the driver that is installed: postgresql+psycopg2://…"
    return f"the store is {_NAMED if tracking.named() else layout.shown(tracking.database())}"


def _set_defaults() -> None:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        Path.home()  # MLflow asks for it when it is imported
    except RuntimeError:  # no HOME, and no entry in passwd, as a user of a container may have it
        os.environ["HOME"] = tempfile.gettempdir()
