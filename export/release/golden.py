"""The golden requests of a release: held-out samples in batches as clients send them, with the reference's answers.

They are spread over batch sizes, lengths and the split. Samples that a published variant answers differently from the
reference are left out, and how far its numbers may be is measured on these very requests, so that the tolerance is
tight enough to tell one sample's answer from another's.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.entities import records
from contracts.errors import ModelConfigError
from contracts.golden import GoldenRequest
from contracts.judging import tasks
from contracts.manifest import Choice
from contracts.samples import Batch
from contracts.spec import DISCRETE, ModelSpec
from export import measure
from export.context import ExportContext
from export.errors import StepError
from export.proof.runners import Runner, length
from export.prove import ProvenVariant
from export.release import ensemble

_REQUESTS = 32
_FEWEST = 2  # of one sample, even if they are larger than that
_BUDGET = 4 << 20  # bytes, before they are compressed
_MARGIN = 2.0  # times what was measured: another machine's kernels round otherwise
_LEAST = 1e-4  # of an output's largest value
_SEED = 0
_ENSEMBLE_BATCHES = (1, 1, 2, 4, 1, 3)


def golden_requests(
    context: ExportContext, proven: Sequence[ProvenVariant], choices: Sequence[Choice], model_directory: Path
) -> list[GoldenRequest]:
    """Make the golden requests of the network, and of the ensembles above it that its source has examples for."""
    published = [p for p in proven if any(choice.precision == p.variant.precision for choice in choices)]
    runners = [measure.runner(context, p.variant.precision, p.graph) for p in published]
    own = _within_budget(_of_network(context, _same_answers(context, published)), context.source.spec.batched)
    sent = [_as_sent(request, context.source.spec) for request in _with_tolerances(own, runners)]
    return [*sent, *_of_ensembles(context, runners, model_directory)]


def _same_answers(context: ExportContext, published: Sequence[ProvenVariant]) -> NDArray[np.bool_]:
    """Tell of each held-out sample whether every published variant answers it as the reference does."""
    spec, right = context.source.spec, context.judged("held-out").answers
    same = np.ones(len(context.source.held_out), bool)
    for p in published if spec.task in DISCRETE else ():
        if right is not None and p.answers is not None:
            agreed = tasks.agree(p.answers, right, spec)
            same &= agreed if agreed is not None else True
    return same if same.any() else np.ones(len(same), bool)


def _of_network(context: ExportContext, usable: NDArray[np.bool_]) -> Iterator[GoldenRequest]:
    """Yield requests for the network: of every group in turn, in batches of one, of a few, and of the fullest."""
    spec, split, reference = context.source.spec, context.source.held_out, context.reference["held-out"]
    random, start, drawn = np.random.default_rng(_SEED), 0, []
    for number, group in enumerate(split.groups):
        chosen = random.permutation(np.flatnonzero(usable[start : start + len(group)]))
        if len(chosen):
            drawn.append((number, start, itertools.cycle(chosen.tolist()), len(chosen)))
        start += len(group)
    sizes = [1, 1, 2, spec.usual_batch, 1, 3, 1, spec.max_batch] if spec.batched else [0]
    for turn in itertools.count():
        for place, (number, first, samples, count) in enumerate(drawn):
            size = sizes[(turn + place) % len(sizes)]  # of many lengths, not all the first ones alone
            if size == 0:
                index = next(samples)
                inputs = {name: np.asarray(values[index]) for name, values in split.groups[number].inputs.items()}
                yield GoldenRequest(spec.model, inputs, reference[first + index])
                continue
            rows = [next(samples) for _ in range(min(size, count, spec.max_batch))]
            inputs = {name: values[rows] for name, values in split.groups[number].inputs.items()}
            yield GoldenRequest(spec.model, inputs, {name: v[rows] for name, v in reference[number].items()})


def _within_budget(requests: Iterator[GoldenRequest], batched: bool) -> list[GoldenRequest]:
    """Take so many requests, leaving out those that are too large for what is left of the budget.

    A few of one sample are taken even so: no release is without.
    """
    taken: list[GoldenRequest] = []
    left = _BUDGET
    for request in itertools.islice(requests, 4 * _REQUESTS):
        alone = request.rows == 1 or not batched
        if request.size_bytes <= left or (len(taken) < _FEWEST and alone):
            taken.append(request)
            left -= request.size_bytes
        if len(taken) == _REQUESTS:
            break
    return taken


def _with_tolerances(requests: Sequence[GoldenRequest], runners: Sequence[Runner]) -> Iterator[GoldenRequest]:
    """Yield the requests with the tolerances that the published variants need on all of them."""
    tolerance: dict[str, float] = {}
    for request in requests:
        answers = [run(request.inputs) for run in runners]
        for name, right in request.answers.items():
            same_rows = [answer[name] for answer in answers if answer[name].shape == right.shape]
            if right.dtype.kind == "f":
                tolerance[name] = max(tolerance.get(name, 0.0), _tolerance(same_rows, right))
    for request in requests:
        yield replace(request, tolerance={name: tolerance[name] for name in request.answers if name in tolerance})


def _as_sent(request: GoldenRequest, spec: ModelSpec) -> GoldenRequest:
    """Give a number that is alone the dimension of 1 that Triton has for it: it knows no scalars."""
    scalar = 1 if spec.batched else 0

    def whole(batch: Batch) -> dict[str, NDArray[Any]]:
        return {name: values[..., None] if values.ndim == scalar else values for name, values in batch.items()}

    return replace(request, inputs=whole(request.inputs), answers=whole(request.answers))


def _of_ensembles(context: ExportContext, runners: Sequence[Runner], model_directory: Path) -> Iterator[GoldenRequest]:
    """Yield requests for each ensemble above the network, of the examples that its source has of what clients send."""
    source, root = context.source, model_directory.parent
    if source.raw_examples is None:
        return
    examples = source.raw_examples(_REQUESTS)
    for name, raw in _asked(root, ensemble.above(model_directory), examples):
        try:
            right, *served = (
                ensemble.Ensemble(root, name, source.spec.model, run).run(raw) for run in (source.reference(), *runners)
            )
        except (StepError, ModelConfigError) as error:
            context.progress.say(f"No golden requests for {name}: {error}")
            continue
        tolerance = {o: _tolerance([a[o] for a in served], v) for o, v in right.items() if v.dtype.kind == "f"}
        for part in _parts(length(raw)):
            yield GoldenRequest(name, _rows(raw, part), _undisputed(right, served, part), tolerance)


def _asked(root: Path, names: Sequence[str], examples: Batch) -> Iterator[tuple[str, Batch]]:
    """Yield each ensemble that takes the examples, with them, and once more as records where it takes those, too."""
    for name in names:
        if ensemble.takes(root, name, examples):
            yield name, examples
            if ensemble.takes_records(root, name):
                yield name, records.of_columns(examples)


def _undisputed(right: Batch, served: Sequence[Batch], part: slice) -> dict[str, NDArray[Any]]:
    """Return the answers to some rows, without the outputs of names or numbers that a variant gives otherwise."""
    answers = _rows(right, part)
    return {
        output: values
        for output, values in answers.items()
        if values.dtype.kind == "f" or all(np.array_equal(other[output][part], values) for other in served)
    }


def _parts(rows: int) -> Iterator[slice]:
    """Cut rows into requests of one, and of a few."""
    start = 0
    for size in itertools.cycle(_ENSEMBLE_BATCHES):
        if start >= rows:
            return
        yield slice(start, start + size)
        start += size


def _rows(batch: Batch, part: slice) -> dict[str, NDArray[Any]]:
    return {name: values[part] for name, values in batch.items()}


def _tolerance(served: Sequence[NDArray[Any]], right: NDArray[Any]) -> float:
    """Return how far numbers may be from the reference's, by what the published variants give."""
    apart = [np.abs(np.subtract(values, right, dtype=np.float64)).max(initial=0.0) for values in served]
    return _MARGIN * float(max(apart, default=0.0)) + _LEAST * float(np.abs(right).max(initial=0.0))
