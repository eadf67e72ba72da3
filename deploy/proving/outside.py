"""Requests that a release must refuse: larger batches than it takes, shapes outside of the range that was proven."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.samples import Batch

Range = Mapping[str, Sequence[Sequence[int]]]  # {input: its smallest and its largest shape}


def too_many_rows(inputs: Batch, max_batch: int) -> Batch:
    """Repeat rows of a valid request until they are one more than a batch takes."""
    return {name: _resized(values, 0, max_batch + 1) for name, values in inputs.items()}


def of_other_shapes(inputs: Batch, proven: Range, *, batched: bool) -> Iterator[Batch]:
    """Yield a valid request with a dimension just above its largest size that was proven, and just below its smallest.

    Dimensions with the same bounds, such as the lengths of tokens and of their mask, are moved together.
    """
    bounds: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name, (smallest, largest) in proven.items():
        for axis in range(1 if batched else 0, min(len(smallest), len(largest))):
            if name in inputs and axis < inputs[name].ndim and smallest[axis] < largest[axis]:
                bounds.setdefault((smallest[axis], largest[axis]), []).append((name, axis))
    for (lowest, highest), places in bounds.items():
        for size in (highest + 1, lowest - 1):
            if size > 0:  # a request of no element is another matter
                changed = dict(inputs)
                for name, axis in places:
                    changed[name] = _resized(changed[name], axis, size)
                yield changed


def _resized(values: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    resized: NDArray[Any] = np.take(values, np.arange(size) % values.shape[axis], axis)
    return resized
