"""What a table's columns do to the answers: Shapley values of the graph that is published, for models with columns.

The value of a column for a prediction is what it moves the answer by, on average over all orders in which the columns
of the sample take the place of those of another sample (Štrumbelj and Kononenko 2014, doi:10.1007/s10115-013-0679-x;
Lundberg and Lee 2017, arXiv:1705.07874). Orders are drawn at random, each with its reverse, which takes away most of
the noise (Mitchell et al. 2022, arXiv:2104.12199). The values of a prediction add up to what it is above the mean of
those that it was compared with: exactly, not on average. It takes a runner alone, so that what is explained is what is
served, whichever library it came from.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.samples import Batch, Split
from contracts.spec import ModelSpec

_EXPLAINED = 300  # predictions
_ORDERS = 16  # a prediction, each with its reverse
_SHOWN = 3  # predictions that are shown by themselves
_AT_ONCE = 4096  # rows that the graph answers in one call, at most its largest batch
_SEED = 0

Answer = Callable[[Batch], NDArray[np.float64]]  # of a batch, [B]


@dataclass(frozen=True)
class Explained:
    """One prediction: what each column is, and what it moves the answer by."""

    index: int  # in the held-out split
    answer: float
    values: tuple[str, ...]  # one a column
    moved: tuple[float, ...]  # the same


@dataclass(frozen=True)
class Importance:
    """What each column does to the answers."""

    columns: tuple[str, ...]
    indices: NDArray[np.intp]  # [predictions], in the held-out split
    start: NDArray[np.float64]  # [predictions], the mean of the answers that each was compared with
    moved: NDArray[np.float64]  # [predictions, columns]
    shown: tuple[Explained, ...]  # the highest answer, that in the middle, and the lowest

    @property
    def mean(self) -> float:
        """Return the mean of the answers that all were compared with."""
        return float(self.start.mean())

    @property
    def overall(self) -> dict[str, float]:
        """Return {column: the mean of what it moves an answer by, without sign}, the largest first."""
        mean = np.abs(self.moved).mean(axis=0)
        return {self.columns[place]: float(mean[place]) for place in np.argsort(-mean, kind="stable")}


def explains(spec: ModelSpec) -> bool:
    """Tell whether columns of a model can be told apart, and its answer is one value."""
    return spec.task in ("binary", "regression") and spec.batched and all(tensor.columns for tensor in spec.inputs)


def importance(run: Callable[[Batch], Batch], split: Split, spec: ModelSpec) -> Importance:
    """Explain predictions of a split, spread over it.

    Args:
        run: The graph, or what stands for it.
    """

    def answer(batch: Batch) -> NDArray[np.float64]:
        size = min(_AT_ONCE, spec.max_batch)
        parts = Split.of(batch).batches(size)
        found: NDArray[np.float64] = np.concatenate([run(part)[spec.answer_output][:, 0] for part in parts])
        return found.astype(np.float64)

    random = np.random.default_rng(_SEED)
    together = {tensor.name: np.concatenate([g.inputs[tensor.name] for g in split.groups]) for tensor in spec.inputs}
    chosen = np.sort(random.choice(len(split), min(_EXPLAINED, len(split)), replace=False))
    moved, start = _moved(answer, together, chosen, random)
    answers = answer(_rows(together, chosen))
    order = np.argsort(-answers, kind="stable")
    examples = dict.fromkeys(int(order[place]) for place in (0, len(order) // 2, -1))
    columns = tuple(column for tensor in spec.inputs for column in tensor.columns)
    shown = tuple(
        Explained(int(chosen[i]), float(answers[i]), _said(together, int(chosen[i]), spec), tuple(map(float, moved[i])))
        for i in list(examples)[:_SHOWN]
    )
    return Importance(columns, chosen, start, moved, shown)


def _moved(
    answer: Answer, inputs: Batch, chosen: NDArray[np.intp], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what every column moves each prediction by, [chosen, columns], and the mean that each starts from."""
    places = [(name, column) for name, values in inputs.items() for column in range(values.shape[1])]
    moved = np.zeros((len(chosen), len(places)))
    means = np.zeros(len(chosen))
    for _ in range(_ORDERS // 2):
        other = random.integers(len(next(iter(inputs.values()))), size=len(chosen))
        order = random.permutation(len(places))
        for taken in (order, order[::-1]):
            now = {name: np.array(values) for name, values in _rows(inputs, other).items()}
            before = answer(now)
            means += before / _ORDERS
            for place in taken:
                name, column = places[place]
                now[name][:, column] = inputs[name][chosen, column]
                after = answer(now)
                moved[:, place] += (after - before) / _ORDERS
                before = after
    return moved, means


def _rows(inputs: Batch, chosen: NDArray[np.intp]) -> Batch:
    return {name: values[chosen] for name, values in inputs.items()}


def _said(inputs: Batch, index: int, spec: ModelSpec) -> tuple[str, ...]:
    """Return what each column of a sample is, in words: "IAH", "38.5", "not known"."""
    found = []
    for tensor in spec.inputs:
        for column, value in zip(tensor.columns, inputs[tensor.name][index], strict=True):
            names = spec.vocabularies.get(column, ())
            if names:
                found.append(names[int(value)] if 0 <= value < len(names) else str(value))
            else:
                found.append(f"{value:.4g}" if np.isfinite(value) else "not known")
    return tuple(found)
