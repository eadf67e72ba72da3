"""Paired tests: how much worse a variant may really be, given what it and its reference did on the same samples.

Each returns the upper end of a one-sided 95 % confidence interval of the loss: how far the variant's figure is below
the reference's. A loss that is measured as nothing still has an upper end, and few samples have a high one.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z_95 = 1.6448536  # the standard normal distribution's 95 % quantile
_RESAMPLES = 2000
_BINS = 20  # of a calibration error

Scores = NDArray[np.float64]  # one a sample, [N]


def tango_bound(lost: int, gained: int, count: int) -> float:
    """Return the bound for a share, of whose samples so many changed sides: Tango's interval for paired proportions.

    It is the difference at which the score test of `lost` - `gained` just rejects, equations (2) to (4), and keeps its
    promise also where few change sides or most of them in one direction: Tango, Stat. Med. 17 (1998); Fagerland,
    Lydersen and Laake, Stat. Med. 33 (2014), doi:10.1002/sim.6148.
    """
    from scipy.optimize import brentq

    def above(difference: float) -> float:
        a, c = 2 * count, -gained * difference * (1 - difference)
        b = -lost - gained + (2 * count - lost + gained) * difference
        p_gained = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)  # the likeliest, given the difference
        variance = count * (2 * p_gained + difference * (1 - difference))
        return lost - gained - count * difference + _Z_95 * math.sqrt(max(variance, 0.0))

    measured = (lost - gained) / count
    just_above = measured + 1e-9  # where nothing changed sides, the measured difference solves it too
    return float(brentq(above, just_above, 1.0)) if just_above < 1 else 1.0


def samples_for(bound: float) -> int | None:
    """Return how many samples, none of which changes sides, it takes for Tango's bound to be that low.

    The other way round: n samples show z² / (n + z²). None where no number is enough.
    """
    if bound <= 0:
        return None
    squared = _Z_95 * _Z_95
    return max(1, math.ceil(squared * (1 - bound) / bound - 1e-6))


def rarer(positive: NDArray[np.bool_]) -> int:
    """Return how many samples the rarer of two classes has."""
    return int(min(positive.sum(), (~positive).sum()))


def mean_bound(before: Scores, after: Scores) -> float:
    """Return the bound for a mean of scores: Student's paired interval (Student, Biometrika 6, 1908)."""
    from scipy.stats import t

    loss = before - after
    if len(loss) < 2:
        return math.inf
    return float(loss.mean() + t.ppf(0.95, len(loss) - 1) * loss.std(ddof=1) / math.sqrt(len(loss)))


def auc_bound(before: Scores, after: Scores, positive: NDArray[np.bool_]) -> float:
    """Return the bound for the area under the ROC curve (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).

    Where both separate the classes altogether, DeLong's interval has no width: then the bound is that of a share of as
    many samples as the smaller class has, none of which changed sides. The very same scores have lost nothing.

    Args:
        before, after: What the reference and the variant gave, the higher the more likely positive.
        positive: Which samples are.
    """
    if np.array_equal(before, after):
        return 0.0
    gain, variance = auc_gain(before, after, positive)
    least = tango_bound(0, 0, rarer(positive)) if variance == 0 else 0.0
    return max(_Z_95 * math.sqrt(variance), least) - gain


def auc_gain(before: Scores, after: Scores, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how much larger the second area under the ROC curve is, and DeLong's variance of that."""
    (area, placed), (other, moved) = _placements(before, positive), _placements(after, positive)
    variance = sum(float(np.var(a - b, ddof=1)) / len(a) for a, b in zip(placed, moved, strict=True) if len(a) > 1)
    return other - area, variance


def auc_variance(scores: Scores, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the area under the ROC curve, and DeLong's variance of it."""
    area, placed = _placements(scores, positive)
    return area, sum(float(np.var(part, ddof=1)) / len(part) for part in placed if len(part) > 1)


def calibration_error(probabilities: Scores, positive: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: how far probabilities are from shares, in 20 bins of equal width.

    Pakdaman Naeini, Cooper and Hauskrecht, AAAI 2015. Each bin counts as many times as it has samples.
    """
    place = np.clip((probabilities * _BINS).astype(np.int64), 0, _BINS - 1)
    said = np.bincount(place, probabilities, _BINS)
    true = np.bincount(place, positive, _BINS)
    return float(np.abs(said - true).sum() / max(1, len(probabilities)))


def auc(scores: Scores, positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, ties counting half; NaN where one of the two classes has no sample."""
    return _placements(scores, positive)[0]


def bootstrap_bound(
    figure: Callable[[Scores, NDArray[np.intp]], float],
    before: Scores,
    after: Scores,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> float:
    """Return the bound for any figure: the 95 % quantile of its loss over many resamplings of the pairs.

    The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), for a figure
    that has no paired test of its own. It is too narrow for very few samples.

    Args:
        figure: Of scores, and of the indices of the samples that they belong to.
    """
    random, count = np.random.default_rng(seed), len(before)
    losses = []
    for _ in range(resamples):
        drawn = random.integers(count, size=count)
        losses.append(figure(before[drawn], drawn) - figure(after[drawn], drawn))
    return float(np.quantile(losses, 0.95))


def _placements(scores: Scores, positive: NDArray[np.bool_]) -> tuple[float, tuple[Any, Any]]:
    """Return the area, and what share of the other class each positive, and each negative, is placed right against."""
    from scipy.stats import rankdata

    high, low = scores[positive], scores[~positive]
    if not len(high) or not len(low):
        return math.nan, (np.empty(0), np.empty(0))
    together = rankdata(np.concatenate([high, low]))
    of_high = (together[: len(high)] - rankdata(high)) / len(low)
    of_low = 1 - (together[len(high) :] - rankdata(low)) / len(high)
    return float(of_high.mean()), (of_high, of_low)
