"""Whether an answer depends on what is in the batch beside it: a server batches the samples of whoever asks at once."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from contracts import golden
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export.cache import Cache
from export.proof.compare import compare
from export.proof.runners import predict
from export.source.base import ExportSource

# Samples that are looked at, and how many of them at a time.
_SAMPLES, _AT_A_TIME = 16, 8


def alone_if_it_must(source: ExportSource, cache: Cache, say: Callable[[str], None]) -> ExportSource:
    """Return `source`; or as if its spec said max = 1 of the batch, where its answers in a batch are others than alone.

    So it is with a mean or an If over the first dimension, or with a scale that is computed of the whole batch. Each
    row is answered as the graph answers it, and no client sees what another one sent.

    Args:
        say: Is told of it.

    Raises:
        GraphError: it does not run.
    """
    spec = source.spec
    if not spec.batched or spec.batch.max == 1:
        return source
    data = [source.origin.identity, source.origin.data_fingerprint, spec.inputs, spec.outputs, len(source.held_out)]
    place, _ = cache.step("company", lambda place: _measure(source, place / "apart.json"), data=data, samples=_SAMPLES)
    if (told := _told(json.loads((place / "apart.json").read_text()), spec)) is None:
        return source
    say(f"  warning: {told}; so it is served a row at a time, as with max = 1 of the batch in the spec")
    inputs, outputs = (tuple(map(_of_one_row, tensors)) for tensors in (spec.inputs, spec.outputs))
    return replace(source, spec=replace(spec, inputs=inputs, outputs=outputs))


def _measure(source: ExportSource, path: Path) -> None:
    """Write {output: how far a sample's answer in a batch is from the one that it gets alone, and of what size}."""
    spec, run, split = source.spec, source.reference(), source.held_out.first(_SAMPLES)
    alone = predict(run, split, 1)
    apart = compare(predict(run, split, min(spec.batch.max, _AT_A_TIME)), alone, spec).differences
    floats = {tensor.name for tensor in spec.outputs if np.dtype(tensor.dtype).kind == "f"}  # all else is equal or not
    sizes = {name: max(float(np.abs(part[name]).max(initial=0.0)) for part in alone) for name in floats}
    found = {name: (difference.largest, sizes.get(name, 0.0)) for name, difference in apart.items()}
    path.write_text(json.dumps(found))


def _told(apart: Mapping[str, tuple[float, float]], spec: ModelSpec) -> str | None:
    """Say which output is further off than FP32 may be, and than `up` would take; None if none is."""
    for output, (figure, size) in apart.items():
        allowed = spec.limits["fp32"].of(output).largest if "fp32" in spec.limits else None
        limit = golden.tolerance_in_company(allowed or 0.0, size)
        if figure > limit:
            return (
                f"the answer to a sample depends on what is in the batch beside it: {output!r} is {figure:.3g} away "
                f"from what the sample alone gets (limit: {limit:.3g})"
            )
    return None


def _of_one_row(tensor: TensorSpec) -> TensorSpec:
    batch, *rest = tensor.shape
    one = DynamicDim(batch.name, 1, 1, 1) if isinstance(batch, DynamicDim) else batch
    return replace(tensor, shape=(one, *rest))
