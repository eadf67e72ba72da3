"""Logs a family's metric over a whole split, computed as the export computes it: `val_accuracy`, `test_auc`."""

from typing import Any

import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from contracts.judging import tasks
from contracts.samples import Batch
from contracts.spec import ModelSpec
from training.batching import processes
from training.errors import TrainingError


def monitored(spec: ModelSpec) -> tuple[str, str]:
    """Return what early stopping and the best checkpoint go by, and whether its "max" or its "min" is best.

    It is the metric on the validation split; of the task "values", which has none, the loss that the module logs.
    """
    if spec.metric is None:
        return "val_loss", "min"
    return f"val_{spec.metric.name}", "max" if spec.metric.better == "higher" else "min"


class LogMetric(pl.Callback):
    """A callback that logs the metric of the validation and the test split, where the spec has one.

    It gathers what the steps return, as no mean over batches is an AUC, from all processes that train together.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._outputs: list[Batch] = []  # of the split so far, one a batch
        self._targets: list[NDArray[Any]] = []

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the split before."""
        self._forget()

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the split before."""
        self._forget()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        """Keep what `validation_step` returned."""
        self._keep(outputs, "validation_step")

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *batch: Any) -> None:
        """Keep what `test_step` returned."""
        self._keep(outputs, "test_step")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metric, but not of the few batches that Lightning tries before it begins."""
        if not trainer.sanity_checking:
            self._log("val", pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metric."""
        self._log("test", pl_module)

    def _gather(self) -> None:
        """Take in what the others have of the split; each then computes the same figure."""
        if (count := processes()) == 1:
            return
        found: list[Any] = [None] * count
        distributed.all_gather_object(found, (self._outputs, self._targets))
        self._outputs = [batch for outputs, _ in found for batch in outputs]
        self._targets = [targets for _, kept in found for targets in kept]

    def _forget(self) -> None:
        self._outputs, self._targets = [], []

    def _keep(self, returned: Any, step: str) -> None:
        if self._spec.metric is None:
            return
        try:
            outputs, targets = returned["outputs"], returned["targets"]
            missing = self._spec.answer_output not in outputs
            if len(targets) or missing:  # else the others of several processes have the few rows of this batch
                self._outputs.append({name: _array(tensor) for name, tensor in outputs.items()})
                self._targets.append(_array(targets))
        except (TypeError, KeyError, AttributeError):
            missing = True
        if missing:
            raise TrainingError(
                f"{self._spec.family}: {step} does not return what {self._spec.metric.name} is computed from",
                note="it returns an Evaluated (training/families/__init__.py): "
                f'{{"outputs": {{"{self._spec.answer_output}": …}}, "targets": …}}',
            )

    def _log(self, split: str, module: pl.LightningModule) -> None:
        if self._spec.metric is None:
            return
        self._gather()  # first: the others wait for one that has nothing
        if not self._outputs:
            return
        scores = self._spec.metric.scores(tasks.predicted(self._outputs, self._spec), self._targets)
        figure = self._spec.metric.value(scores, self._targets)
        module.log(f"{split}_{self._spec.metric.name}", figure, prog_bar=True, sync_dist=True)
        self._forget()


def _array(tensor: Tensor) -> NDArray[Any]:
    exact = tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # which numpy does not have
    array: NDArray[Any] = exact.detach().cpu().numpy()
    return array
