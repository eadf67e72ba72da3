"""How sure a figure is: two-sided 95 % confidence intervals of a metric on the samples that it was measured on.

How much worse one variant is than another on the same samples is another question, which paired.py answers.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from contracts.judging import paired
from contracts.judging.paired import Scores

_Z_975 = 1.959964  # the standard normal distribution's 97.5 % quantile
_RESAMPLES = 200

Interval = tuple[float, float]


def of_share(hits: float, count: int) -> Interval:
    """Return Wilson's interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    if not count:
        return math.nan, math.nan
    share, squared = hits / count, _Z_975**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    half = _Z_975 * math.sqrt(share * (1 - share) / count + squared / (4 * count**2)) / (1 + squared / count)
    return middle - half, middle + half


def of_mean(scores: Scores) -> Interval:
    """Return Student's interval of a mean (Student, Biometrika 6, 1908)."""
    from scipy.stats import t

    if len(scores) < 2:
        return math.nan, math.nan
    half = float(t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / math.sqrt(len(scores)))
    return float(scores.mean()) - half, float(scores.mean()) + half


def of_auc(scores: Scores, positive: NDArray[np.bool_]) -> Interval:
    """Return DeLong's interval of the area under the ROC curve (Biometrics 44, 1988)."""
    area, variance = paired.auc_variance(scores, positive)
    half = _Z_975 * math.sqrt(variance)
    return max(0.0, area - half), min(1.0, area + half)


def of_auc_difference(before: Scores, after: Scores, positive: NDArray[np.bool_]) -> tuple[float, Interval]:
    """Return how much larger the second area is, and DeLong's interval of that: both judge the same samples."""
    gain, variance = paired.auc_gain(before, after, positive)
    half = _Z_975 * math.sqrt(variance)
    return gain, (gain - half, gain + half)


def of_figure(figure: Callable[[Scores, NDArray[np.intp]], float], scores: Scores, seed: int = 0) -> Interval:
    """Return an interval of any figure: by its bootstrap's standard error (Efron and Tibshirani 1993, chapter 13).

    Not between quantiles of the resamplings: those of a calibration error, which noise makes larger, all lie above it.

    Args:
        figure: Of scores, and of the indices of the samples that they belong to.
    """
    random, count = np.random.default_rng(seed), len(scores)
    drawn = (random.integers(count, size=count) for _ in range(_RESAMPLES))
    half = _Z_975 * float(np.std([figure(scores[rows], rows) for rows in drawn], ddof=1))
    whole = figure(scores, np.arange(count))
    return whole - half, whole + half


def shown(value: float, interval: Interval | None, digits: int = 4) -> str:
    """Return a figure with its interval as people read it: "0.7218 (0.7165 to 0.7271)"."""
    if interval is None or not all(map(math.isfinite, interval)):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"
