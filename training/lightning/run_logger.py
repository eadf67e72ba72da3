"""MLflow's logger of a run: it goes on with one that is resumed, and training outlives a MLflow that is gone."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment  # type: ignore[attr-defined]  # not in its __all__
from pytorch_lightning.utilities import rank_zero_only

from training import tracking
from training.runs import beginning
from training.runs.outbox import Outbox

if TYPE_CHECKING:  # it takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run


class RunLogger(MLFlowLogger):
    """A run of MLflow's, new or gone on with; one for all processes that train together.

    Args:
        experiment_name: The family.
        folder: The run's, where what MLflow did not take is kept.
        run_name: What it is called.
        tags: What it can be found by, {name: text}.
        run_id: The run that is gone on with; None for a new one.
    """

    def __init__(
        self,
        experiment_name: str,
        folder: Path,
        run_name: str | None = None,
        tags: dict[str, str] | None = None,
        run_id: str | None = None,
    ) -> None:
        beginning.be_impatient()
        store = tracking.open_store()
        super().__init__(
            experiment_name, run_name, store, dict(tags or {}), run_id=run_id,
            artifact_location=tracking.artifact_location(),
        )  # fmt: skip
        self._folder, self._given = Path(folder), dict(tags or {})
        self._outbox: Outbox | None = None
        self._told: dict[str, set[tuple[int, float]]] = {}  # {figure: what the run had when it was resumed}
        self._begun = False  # a run that is gone on with has to be told so
        self.ended = "FAILED"  # how a fit that does not reach its end is called

    @property
    @rank_zero_experiment
    def experiment(self) -> "MlflowClient":
        """The client, after the run was begun or found.

        Raises:
            TrainingError: MLflow does not answer, or has the experiment no more; nothing is trained yet.
        """
        if self._initialized:
            return self._mlflow_client
        with beginning.answers(str(self._tracking_uri)):
            resumed = self._found() if self._run_id else None
            if self._run_id and resumed is None:
                _say(f"Its MLflow run, {self._run_id}, is not there any more: it goes on in a new one")
                self._run_id = None
            if resumed is not None:
                self._told = {name: self._history(name) for name in resumed.data.metrics}
            elif self._experiment_id is None:
                self._experiment_id = tracking.experiment(self._mlflow_client, str(self._experiment_name))
            client: MlflowClient = MLFlowLogger.experiment.fget(self)  # type: ignore[attr-defined]  # a property
        self._outbox = Outbox(client, str(self._run_id), self._folder, _say)
        self._begun = resumed is None
        return client

    @rank_zero_only
    def begin(self) -> None:
        """Tell that a run which is gone on with runs again; until then it is as it was."""
        if not self._begun:
            self.outbox.status("RUNNING")
            self.outbox.tags(self._given)
            self._begun = True

    @property
    def outbox(self) -> Outbox:
        """What is told of the run; of the first process alone."""
        _ = self.experiment
        assert self._outbox is not None
        return self._outbox

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any) -> None:
        """Tell what the module and the data were made with."""
        from lightning_fabric.utilities.logger import _convert_params, _flatten_dict

        self.outbox.parameters(_flatten_dict(_convert_params(params)))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Tell the figures of a step, but for those that the run has: a resumed one may do a part of it again."""
        at = step or 0
        figures = {name: float(value) for name, value in metrics.items()}
        new = {name: value for name, value in figures.items() if (at, value) not in self._told.get(name, ())}
        if new:
            self.outbox.metrics(new, at)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Tell how the run ended."""
        if self._initialized and self._begun:
            self.outbox.status("FINISHED" if status in ("success", "finished") else self.ended)

    def _found(self) -> "Run | None":
        from mlflow.exceptions import MlflowException

        try:
            run = self._mlflow_client.get_run(str(self._run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _history(self, name: str) -> set[tuple[int, float]]:
        return {
            (metric.step, metric.value) for metric in self._mlflow_client.get_metric_history(str(self._run_id), name)
        }


def _say(line: str) -> None:
    print(f"\n{line}", file=sys.stderr)
