"""Training goes by the family's own metric, over a whole split, computed as the export computes it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts.judging import metric
from contracts.judging.metric import Metric
from contracts.spec import DynamicDim, Limits, ModelSpec, Task, TensorSpec
from training.errors import TrainingError

BATCH = DynamicDim("batch", 1, 4, 8)


def spec(task: Task, judge: Metric | None = None, columns: int = 1) -> ModelSpec:
    return ModelSpec(
        "f", "m", (TensorSpec("x", "float32", (BATCH, 2)),), (TensorSpec("y", "float32", (BATCH, columns)),),
        {"fp32": Limits({"y": 1e-3}, agreement=None if task in ("regression", "values") else 1.0)},
        task, metric=judge,
    )  # fmt: skip


class Logged:
    """A module that notes what is logged."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def log(self, name: str, value: float, **_: Any) -> None:
        self.figures[name] = value


class Trainer:
    sanity_checking = False


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (spec("classification", columns=3), ("val_accuracy", "max")),
        (spec("binary"), ("val_auc", "max")),
        (spec("regression"), ("val_squared_error", "min")),
        (spec("regression", metric.ABSOLUTE_ERROR), ("val_absolute_error", "min")),
        (spec("values"), ("val_loss", "min")),
    ],
)
def test_what_is_monitored_and_which_end_is_best_follow_from_the_spec(of: ModelSpec, expected: tuple[str, str]) -> None:
    from training.lightning.metric_callback import monitored

    assert monitored(of) == expected


def evaluated(of: ModelSpec, batches: list[dict[str, Any]], step: str = "validation", trainer: Any = None) -> Logged:
    from training.lightning.metric_callback import LogMetric

    callback, module, trainer = LogMetric(of), Logged(), trainer or Trainer()
    for _ in range(2):  # as in a second epoch: nothing of the first is left
        getattr(callback, f"on_{step}_epoch_start")(trainer, module)
        for index, batch in enumerate(batches):
            getattr(callback, f"on_{step}_batch_end")(trainer, module, batch, None, index)
        getattr(callback, f"on_{step}_epoch_end")(trainer, module)
    return module


def test_the_figure_is_that_of_the_whole_split_and_no_mean_over_batches() -> None:
    """Each of the batches alone has the AUC 1; together they have not."""
    import torch

    scores = [torch.tensor([[0.1], [0.2]]), torch.tensor([[0.8], [0.9]])]
    targets = [torch.tensor([0, 1]), torch.tensor([0, 1])]
    batches = [{"outputs": {"y": y}, "targets": t} for y, t in zip(scores, targets, strict=True)]
    assert evaluated(spec("binary"), batches).figures == {"val_auc": 0.75}
    assert evaluated(spec("binary"), batches, step="test").figures == {"test_auc": 0.75}


def test_samples_of_different_lengths_and_sixteen_bits_are_judged() -> None:
    import torch

    batches = [
        {"outputs": {"y": torch.zeros(2, 1, dtype=torch.bfloat16)}, "targets": torch.ones(2, 1)},
        {"outputs": {"y": torch.zeros(1, 1, dtype=torch.bfloat16)}, "targets": torch.full((1, 1), 4.0)},
    ]
    [(name, figure)] = evaluated(spec("regression"), batches).figures.items()
    assert name == "val_squared_error"
    np.testing.assert_allclose(figure, (1 + 1 + 16) / 3)


def test_a_batch_of_which_this_process_has_no_rows_counts_for_nothing() -> None:
    import torch

    batches = [{"outputs": {"y": torch.ones(n, 1)}, "targets": torch.zeros(n, 1)} for n in (2, 0)]
    assert evaluated(spec("regression"), batches).figures == {"val_squared_error": 1.0}


def test_the_few_batches_that_are_tried_first_are_not_judged() -> None:
    import torch

    class Trying(Trainer):
        sanity_checking = True

    one_class = [{"outputs": {"y": torch.zeros(2, 1)}, "targets": torch.zeros(2)}]  # which has no AUC
    assert evaluated(spec("binary"), one_class, trainer=Trying()).figures == {}


def test_a_task_without_a_metric_needs_nothing_of_its_module() -> None:
    assert evaluated(spec("values"), [None]).figures == {}  # type: ignore[list-item]  # as a step that returns nothing


@pytest.mark.parametrize("returned", [None, 0.5, {"targets": []}, {"outputs": {"z": None}, "targets": []}])
def test_a_module_that_returns_something_else_is_told_what_is_needed(returned: Any) -> None:
    with pytest.raises(TrainingError, match=r"f: validation_step does not return what squared_error is computed from"):
        evaluated(spec("regression"), [returned])


def test_a_metric_of_ones_own_is_computed_as_any_other() -> None:
    import torch

    better = replace(metric.ACCURACY, name="own", figure=lambda scores, targets: float(len(scores)), share=False)
    batches = [{"outputs": {"y": torch.eye(3)}, "targets": torch.arange(3)}]
    assert evaluated(spec("classification", better, columns=3), batches).figures == {"val_own": 3.0}
