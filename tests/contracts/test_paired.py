"""A metric gives each sample a score; its loss has a bound that keeps its promise."""

import dataclasses

import numpy as np
import pytest

from contracts.errors import SpecError
from contracts.judging import metric, paired, tasks
from contracts.judging.metric import ACCURACY, AUC, COSINE, SQUARED_ERROR, Predicted
from contracts.spec import DynamicDim, ModelSpec, Task, TensorSpec

BATCH = DynamicDim("batch", 1, 8, 64)


def spec(task: Task, *shape: int, **more: object) -> ModelSpec:
    answer = TensorSpec("y", "float32", (BATCH, *shape))
    return ModelSpec("toy", "toy", (TensorSpec("x", "float32", (BATCH, 4)),), (answer,), {}, task, **more)  # type: ignore[arg-type]


def predicted(values: np.ndarray, task: Task = "values") -> Predicted:
    return tasks.predicted([{"y": values}], spec(task, *values.shape[1:]))


def test_accuracys_bound_is_tangos() -> None:
    """Without a change the score equation has the solution z² / (n + z²)."""
    same = np.ones(10_000)
    loss = ACCURACY.loss(same, same, [np.zeros(10_000)])
    assert loss.measured == 0
    assert loss.bound == pytest.approx(1.6448536**2 / (10_000 + 1.6448536**2), abs=1e-6)


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.01), (0.03, 0.005), (0.002, 0.001)])
def test_the_bound_of_a_share_covers_the_true_loss_in_95_of_100_draws(lost: float, gained: float) -> None:
    """A simulation of the interval's promise, with a true loss that is known."""
    draws = np.random.default_rng(0).multinomial(2000, [lost, gained, 1 - lost - gained], size=4000)
    bounds = [paired.tango_bound(int(b), int(c), 2000) for b, c, _ in draws]
    assert np.mean(np.array(bounds) >= lost - gained) >= 0.94


def test_the_bound_of_a_mean_covers_the_true_loss_in_95_of_100_draws() -> None:
    random = np.random.default_rng(0)
    losses = random.exponential(1.0, size=(2000, 200)) - 0.9  # skewed, with a true mean of 0.1
    bounds = [paired.mean_bound(row, np.zeros(200)) for row in losses]
    assert 0.92 <= np.mean(np.array(bounds) >= 0.1) <= 0.98


def test_the_bound_of_the_auc_covers_the_true_loss_in_95_of_100_draws() -> None:
    """Two classes of normal scores, the variant's with noise of its own: both areas are known."""
    from scipy.stats import norm

    random, positive = np.random.default_rng(0), np.arange(300) % 3 == 0
    truth = norm.cdf(1.5 / np.sqrt(2)) - norm.cdf(1.5 / np.sqrt(2 * (1 + 0.5**2)))
    kept = []
    for _ in range(600):
        before = 1.5 * positive + random.normal(size=300)
        after = before + 0.5 * random.normal(size=300)
        kept.append(paired.auc_bound(before, after, positive) >= truth)
    assert 0.92 <= np.mean(kept) <= 0.98


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    assert paired.auc(scores, positive) == (3 + 0.5) / 4  # of four pairs one is a tie


def test_the_very_same_scores_have_lost_nothing_and_a_perfect_order_says_little_of_few() -> None:
    scores, positive = np.arange(40.0), np.arange(40) >= 20
    assert paired.auc_bound(scores, scores, positive) == 0
    assert paired.auc_bound(scores, scores * 2, positive) == pytest.approx(paired.tango_bound(0, 0, 20))


@pytest.mark.parametrize(
    ("judge", "values", "targets", "scores"),
    [
        (SQUARED_ERROR, [[1.0, 3.0]], [[1.0, 1.0]], [2.0]),
        (metric.ABSOLUTE_ERROR, [[1.0, 3.0]], [[1.0, 1.0]], [1.0]),
        (COSINE, [[1.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [-1.0, -1.0]], [1.0, -1.0]),
    ],
)
def test_scores_are_one_a_sample(judge: metric.Metric, values: list, targets: list, scores: list) -> None:
    found = judge.scores(predicted(np.array(values, np.float32)), [np.array(targets)])
    assert found == pytest.approx(scores)


def test_recall_asks_for_another_sample_of_the_same_kind_among_the_nearest() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.05]], np.float32)
    kinds = np.array([0, 0, 1, 1, 1])
    found = predicted(vectors, "embedding")
    assert metric.named("recall_at_1").scores(found, [kinds]).tolist() == [0, 0, 1, 1, 0]
    assert metric.named("recall_at_2").scores(found, [kinds]).tolist() == [1, 1, 1, 1, 0]


def test_of_queries_and_documents_only_those_look_and_only_these_are_found() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.05]], np.float32)
    targets = np.array([[0, 1], [0, 0], [1, 1], [1, 0], [7, 1]])
    found, judge = predicted(vectors, "embedding"), metric.named("recall_at_1")
    assert judge.scores(found, [targets]).tolist() == [1, 1, 0], "of the last query nothing is the document"
    assert judge.scores(found, [targets[:2], targets[2:]]).tolist() == [1, 1, 0], "groups are one split"
    assert judge.counted is not None and judge.counted([targets]) == 3
    nearer = targets.copy()
    nearer[1, 1], nearer[4] = 1, (0, 0)  # what was a document looks itself, and the last one is found
    assert judge.scores(found, [nearer]).tolist() == [1, 1, 1]


def test_a_lower_error_is_better() -> None:
    worse = SQUARED_ERROR.loss(np.ones(50), np.full(50, 1.5), [np.zeros(50)])
    assert worse.measured == pytest.approx(0.5) and worse.bound == pytest.approx(0.5)
    assert SQUARED_ERROR.loss(np.full(50, 1.5), np.ones(50), [np.zeros(50)]).measured < 0


def test_a_figure_of_ones_own_has_the_bootstraps_bound() -> None:
    """The median error, which has no paired test of its own."""
    median = dataclasses.replace(SQUARED_ERROR, name="median", figure=lambda scores, _: float(np.median(scores)))
    random = np.random.default_rng(0)
    before = random.exponential(size=400)
    loss = median.loss(before, before + 0.1, [np.zeros(400)])
    assert loss.measured == pytest.approx(0.1)
    assert 0.099 <= loss.bound <= 0.101, "the shift is the same in every resampling"


def test_a_sample_of_every_length_is_seen() -> None:
    """Groups of different lengths: nothing is padded, and no group is left out."""
    groups = [{"y": np.ones((3, 2), np.float32)}, {"y": np.zeros((2, 2), np.float32)}]
    found = tasks.predicted(groups, spec("regression", 2))
    assert SQUARED_ERROR.scores(found, [np.ones((3, 2)), np.ones((2, 2))]).tolist() == [0, 0, 0, 1, 1]


def test_an_unknown_metric_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SpecError, match=r"there is no metric 'f1'\nNote: metrics: accuracy, auc"):
        metric.named("f1")
    with pytest.raises(SpecError, match="needs an answer of one value, or of two classes"):
        AUC.scores(predicted(np.zeros((4, 3), np.float32)), [np.zeros(4)])
