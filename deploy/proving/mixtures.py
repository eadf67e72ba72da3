"""Golden requests in company: rows of different ones in one batch, and the answer that each must get all the same."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.golden import GoldenRequest, tolerance_in_company
from contracts.samples import Batch

_FULL_BATCHES, _ODD_BATCHES = 3, 21
_ODD = (3, 5, 7)
_SEED = 0


@dataclass(frozen=True)
class Asked:
    """A golden request and what the server that is looked at answered to it when it was alone."""

    request: GoldenRequest
    alone: GoldenRequest  # the same, with that answer in place of the reference's

    def fault(self, answer: Batch) -> str | None:
        """Say what is wrong with an answer in company; None if it is the reference's, and the one that it got alone."""
        if told := self.request.fault(answer):
            return told
        if told := self.alone.fault(answer):
            return f"{told}, from the answer that it gets alone"
        return None

    def rows(self) -> Iterator["Asked"]:
        """Yield a request for each of its rows."""
        for row in range(self.request.rows):
            yield Asked(_row(self.request, row), _row(self.alone, row))


def asked(requests: Sequence[GoldenRequest], answers: Sequence[Batch]) -> list[Asked]:
    """Put requests beside the answers that they got alone."""
    tolerance: dict[str, float] = {}
    for name in {name for request in requests for name in request.answers}:
        given = [answer[name] for answer in answers if name in answer and answer[name].dtype.kind == "f"]
        if given:
            scale = max(float(np.abs(values).max(initial=0.0)) for values in given)
            known = max(request.tolerance.get(name, 0.0) for request in requests)
            tolerance[name] = tolerance_in_company(known, scale)
    return [
        Asked(request, replace(request, answers={n: answer[n] for n in request.answers}, tolerance=tolerance))
        for request, answer in zip(requests, answers, strict=True)
    ]


def full(requests: Sequence[Asked], size: int) -> Iterator[list[Asked]]:
    """Yield batches of `size` rows of different requests, from the first row again where there are too few."""
    for rows in _alike(requests):
        endless = itertools.cycle(rows)
        count = min(_FULL_BATCHES, -(-len(rows) // size))
        yield from (list(itertools.islice(endless, size)) for _ in range(count))


def odd(requests: Sequence[Asked], size: int) -> Iterator[list[Asked]]:
    """Yield batches of 3, 5 and 7 rows in turn, as far as `size` allows, of different requests."""
    sizes = [n for n in _ODD if n <= size] or [size]
    for rows in _alike(requests):
        left = iter(rows)
        for n in itertools.islice(itertools.cycle(sizes), _ODD_BATCHES):
            if not (batch := list(itertools.islice(left, n))):
                break
            yield batch


def joined(rows: Sequence[Asked]) -> dict[str, NDArray[Any]]:
    """Put the inputs of rows into one request."""
    return {name: np.concatenate([row.request.inputs[name] for row in rows]) for name in rows[0].request.inputs}


def fault(rows: Sequence[Asked], answer: Batch) -> str | None:
    """Say what is wrong with the answer to `joined`; None if every row got its own."""
    for place, row in enumerate(rows):
        if told := row.fault({name: values[place : place + 1] for name, values in answer.items()}):
            return told
    return None


def _alike(requests: Sequence[Asked]) -> list[list[Asked]]:
    """Return the rows in groups of equal shapes, each in an order that puts rows of different requests together."""
    groups: Mapping[object, list[Asked]] = defaultdict(list)
    for request in requests:
        for row in request.rows():
            groups[tuple((name, v.shape, v.dtype) for name, v in row.request.inputs.items())].append(row)
    shuffled = random.Random(_SEED)  # noqa: S311  # an order, no secret
    for rows in groups.values():
        shuffled.shuffle(rows)
    return list(groups.values())


def _row(request: GoldenRequest, row: int) -> GoldenRequest:
    def one(batch: Batch) -> Batch:
        return {name: values[row : row + 1] for name, values in batch.items()}

    return replace(request, inputs=one(request.inputs), answers=one(request.answers))
