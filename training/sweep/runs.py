"""The searches in MLflow: a run for each, with a run for each trial below it."""

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

from training import tracking
from training.errors import SweepError
from training.runs import beginning
from training.sweep.study import Study

_RUN = "mlflow_run"  # attribute of a study, and of a trial
_PARENT, _NAME = "mlflow.parentRunId", "mlflow.runName"


class Runs:
    """The runs of a search: one above, and one for each trial, which goes on with it when it is begun again."""

    def __init__(self, study: Study, opened: optuna.Study) -> None:
        """Open the run of the search, or go on with it.

        Raises:
            SweepError: MLflow does not answer.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for name in ("alembic", "mlflow.store.db.utils"):  # they tell of every table
            logging.getLogger(name).setLevel(logging.ERROR)
        self._family = study.search.family
        beginning.be_impatient()
        try:
            self._client = MlflowClient(tracking_uri=tracking.open_store())
            self._experiment = tracking.experiment(self._client, self._family)
            self._above = self._opened(opened, study)
        except MlflowException as error:
            raise SweepError("MLflow does not answer", note=str(error).splitlines()[0]) from error

    def of(self, trial: optuna.Trial, study: Study) -> str:
        """Return the run of a trial."""
        held = trial.user_attrs.get(_RUN)
        if held and self._there(held):
            self._client.update_run(held, "RUNNING")
            return str(held)
        name = f"{study.name} {trial.number}"
        tags = {_PARENT: self._above, "sweep": study.name, "trial": str(trial.number)}
        run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        trial.set_user_attr(_RUN, run.info.run_id)
        return str(run.info.run_id)

    def end(self, run: str, status: str, figures: Mapping[str, float], why: str = "") -> None:
        """End the run of a trial: FINISHED, FAILED, or KILLED where it was stopped. Without MLflow the search goes on.

        Args:
            why: What became of it, as a tag.
        """
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            for name, value in figures.items():
                self._client.log_metric(run, name, value)
            if why:
                self._client.set_tag(run, "outcome", why[:500])
            self._client.set_terminated(run, status)

    def close(self, status: str, figures: Mapping[str, float], files: Iterable[Path]) -> None:
        """End the run of the search, with the figures of its best trial and its pictures; where MLflow is there."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            for name, value in figures.items():
                self._client.log_metric(self._above, f"best_{name}", value)
            for path in files:
                tracking.upload(self._client, self._above, path, "sweep")
            self._client.set_terminated(self._above, status)

    def _opened(self, opened: optuna.Study, study: Study) -> str:
        held = opened.user_attrs.get(_RUN)
        if held and self._there(held):
            self._client.update_run(held, "RUNNING")
            return str(held)
        tags: dict[str, Any] = {"sweep": study.name, "family": self._family}
        run = self._client.create_run(self._experiment, int(time.time() * 1e3), tags, f"sweep {study.name}")
        for key, value in study.search.described().items():
            self._client.log_param(run.info.run_id, key, str(value)[:500])
        opened.set_user_attr(_RUN, run.info.run_id)
        return str(run.info.run_id)

    def _there(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_run(run).info.lifecycle_stage) == "active"
        except MlflowException:  # of another store, or removed for good
            return False
