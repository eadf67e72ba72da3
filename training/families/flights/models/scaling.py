"""Mean and deviation of each number in training, for the models that need numbers of about one size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scaling:
    """What is taken off each number, and what it is divided by."""

    mean: NDArray[np.float32]  # [numbers]
    deviation: NDArray[np.float32]  # [numbers], none of them zero

    @staticmethod
    def of(numbers: NDArray[np.float32]) -> "Scaling":
        """Measure numbers, [N, numbers]; those that are missing count for nothing."""
        given = np.isfinite(numbers)
        count = np.maximum(given.sum(axis=0), 1)
        mean = np.where(given, numbers, 0).sum(axis=0, dtype=np.float64) / count
        square = np.where(given, numbers - mean, 0) ** 2
        deviation = np.sqrt(square.sum(axis=0, dtype=np.float64) / count)
        return Scaling(mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32))

    def applied(self, numbers: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return [N, 2 × numbers]: each scaled, 0 where it is missing; then 1 for each that is missing."""
        given = np.isfinite(numbers)
        scaled = np.where(given, (numbers - self.mean) / self.deviation, 0)
        return np.concatenate([scaled, ~given], axis=1).astype(np.float64)
