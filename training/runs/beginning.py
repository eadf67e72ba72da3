"""What a fit needs of MLflow before its first step: an answer. Whatever its client raises is said in words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.errors import ProjectError
from training.errors import TrainingError
from training.runs.outbox import first_line, without_passwords

# MLflow's own are 120 s and seven tries, each twice as late: training would stand still for minutes at a time.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


def be_impatient() -> None:
    """Have MLflow's client give up sooner than it would by itself, unless the environment says when."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


@contextmanager
def answers(store: str) -> Iterator[None]:
    """Make what goes wrong with a store a TrainingError, without the password of its address."""
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # whatever the client of a store raises
        raise TrainingError(
            f"MLflow does not answer at {without_passwords(store)}",
            note=first_line(error),
            hint="start it; or MLFLOW_TRACKING_URI names another; or --trainer.logger false tracks nothing",
        ) from error
