"""The steps of an export that make something, each kept in the cache: reference answers and graphs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cli.progress import Progress
from contracts import manifest
from contracts.files import texts
from contracts.judging import tasks
from contracts.manifest import Recipe
from contracts.samples import Batch, Split
from contracts.spec import ModelSpec, Precision
from export import graphs
from export.cache import Cache
from export.context import ENDS, ExportContext
from export.errors import GraphError
from export.precision import fp16, int8, search
from export.proof.runners import predict
from export.source.base import ExportSource

# Samples whose every intermediate tensor is looked at for FP16.
_FP16_SAMPLES = 64
_FP16_ALONE = 8  # where each is run alone
_REFERENCE_BATCH = 64


def reference_outputs(source: ExportSource, cache: Cache, progress: Progress) -> Mapping[str, Sequence[Batch]]:
    """Run the reference on every split, and at the min, opt and max of the dynamic dimensions.

    What the framework gave for a split, where that lies beside the samples, is the reference instead.

    Returns:
        {"search", "held-out", "min", "opt" or "max": the outputs of each group, or without a batch of each sample}.

    Raises:
        GraphError: it does not run, gives inf or nan itself, or shapes that the spec does not have.
    """
    splits = {"search": source.search, "held-out": source.held_out, **{end: source.inputs_at(end) for end in ENDS}}
    spec = source.spec
    data = [source.origin.identity, source.origin.data_fingerprint, spec.inputs, spec.outputs, spec.batched]
    with progress.step("reference", total=sum(map(len, splits.values()))) as done:

        def make(place: Path) -> None:
            run = source.reference()
            for name, split in splits.items():
                given = predict(run, split, min(spec.max_batch, _REFERENCE_BATCH), done.advance)
                _check_shapes(given, spec)
                _save(_expected(split, spec.batched) or given, given, place / f"{name}.npz")

        place, cached = cache.step("reference", make, data=data, sizes=[len(split) for split in splits.values()])
        outputs = {name: _load(place / f"{name}.npz") for name in splits}
        for name, values in ((n, v) for parts in outputs.values() for part in parts for n, v in part.items()):
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise GraphError(f"the reference itself gives inf or nan as {name!r}", hint="mend the model first")
        done(_told(source, outputs["held-out"]), cached=cached)
    return outputs


def _check_shapes(given: Sequence[Batch], spec: ModelSpec) -> None:
    """See that what the reference gives is what the spec says: what a graph says of its outputs is only a claim."""
    for tensor in spec.outputs:
        for values in (part[tensor.name] for part in given):
            sizes = zip(values.shape, tensor.shape, strict=False)
            if values.ndim != len(tensor.shape) or any(isinstance(d, int) and size != d for size, d in sizes):
                wanted = [d if isinstance(d, int) else d.name for d in tensor.shape]
                raise GraphError(
                    f"the output {tensor.name!r} is {list(values.shape)}, and the spec says [{_listed(wanted)}]",
                    hint="mend the spec; or export the graph again, if it is the graph that is wrong",
                )


def _listed(dims: Sequence[object]) -> str:
    return ", ".join(map(str, dims))


def _expected(split: Split, batched: bool) -> list[Batch] | None:
    """Return what the framework gave, as the reference's outputs would be: a group's each, or a sample's each."""
    if (groups := split.expected) is None or batched:
        return groups
    return [
        {name: values[index] for name, values in outputs.items()}
        for group, outputs in zip(split.groups, groups, strict=True)
        for index in range(len(group))
    ]


def _save(chosen: Sequence[Batch], given: Sequence[Batch], path: Path) -> None:
    """Keep the chosen outputs, and what they lack of those that were computed."""
    parts = [{**computed, **wanted} for computed, wanted in zip(given, chosen, strict=True)]
    arrays = {
        f"{number}/{name}": values.astype(str) if texts.is_text(values) else values  # objects would be pickled
        for number, part in enumerate(parts)
        for name, values in part.items()
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub: allow_pickle


def _load(path: Path) -> list[Batch]:
    parts: dict[int, dict[str, NDArray[Any]]] = {}
    with np.load(path) as stored:
        for key, values in stored.items():
            number, _, name = key.partition("/")
            parts.setdefault(int(number), {})[name] = texts.as_str(values) if texts.is_text(values) else values
    return [parts[number] for number in sorted(parts)]


def _told(source: ExportSource, outputs: Sequence[Batch]) -> str:
    spec, targets, figure = source.spec, source.held_out.targets, ""
    if spec.metric is not None and targets is not None:
        value = spec.metric.value(spec.metric.scores(tasks.predicted(outputs, spec), targets), targets)
        figure = f"{spec.metric.name} {value:.4f} on "
    return f"{figure}{len(source.held_out):,} held-out samples"


def fp32_graph(context: ExportContext) -> Path:
    """Make the graph that FP16 and INT8 are made from.

    Raises:
        GraphError: PyTorch could not export it.
    """
    with context.progress.step("fp32 graph") as done:
        place, cached = context.cache.step(
            "fp32",
            lambda place: context.source.write_graph(place / "fp32.onnx"),
            source=context.source.origin.identity,
            spec=[context.source.spec.inputs, context.source.spec.outputs],
        )
        model = graphs.load(place / "fp32.onnx")
        done(f"{len(model.graph.node)} nodes, {len(graphs.heavy_nodes(model))} of them heavy", cached=cached)
    return place / "fp32.onnx"


def half_graph(context: ExportContext, precision: Literal["fp16", "bf16"], fp32: Path) -> tuple[Path, tuple[str, ...]]:
    """Make the graph of a precision of 16 bits; return it and the layers of it that are kept in FP32, with the reason.

    Raises:
        GraphError: ModelOpt could not convert it.
    """
    with context.progress.step(f"{precision} graph") as done:
        place, cached = _in_16_bits(context, precision, fp32)
        kept = tuple(json.loads((place / "kept.json").read_text()))
        done(f"{len(kept)} layers kept in FP32, the first: {kept[0]}" if kept else "no layer needs FP32", cached=cached)
    return place / f"{precision}.onnx", kept


def mixed_graph(context: ExportContext, precision: Precision, quantized: Path) -> Path:
    """Make the graph that computes in FP16 what an INT8 or FP8 graph leaves in FP32, for TensorRT.

    Raises:
        GraphError: ModelOpt could not convert it, or only by taking layers out of 8 bits.
    """
    name = f"{precision}-fp16"
    place, _ = _in_16_bits(context, name, quantized)
    mixed = place / f"{name}.onnx"
    before, after = (set(int8.quantized_layers(graphs.load(path))) for path in (quantized, mixed))
    if lost := sorted(before - after):
        raise GraphError(f"FP16 around them would take {', '.join(lost)} out of {precision.upper()}")
    return mixed


def _in_16_bits(context: ExportContext, name: str, graph: Path) -> tuple[Path, bool]:
    """Convert a graph to FP16 or BF16; return the folder with it and what is kept in FP32, and whether it was there."""
    spec = context.source.spec
    _refuse_text(spec, name)
    count = _FP16_SAMPLES if spec.batched else _FP16_ALONE
    samples = list(context.source.calibration.first(count).batches(count if spec.batched else 0))

    def make(place: Path) -> None:
        made = place / f"{name}.onnx"
        if name == "fp16":
            kept = fp16.convert(graph, made, samples, batched=spec.batched)
        else:
            kept = fp16.cast(graph, made, samples, "bf16" if name == "bf16" else "fp16", batched=spec.batched)
        (place / "kept.json").write_text(json.dumps([str(k) for k in kept]))

    return context.cache.step(name, make, graph=manifest.sha256(graph), data=context.data)


def _refuse_text(spec: ModelSpec, precision: str) -> None:
    if text := [tensor.name for tensor in spec.inputs if tensor.dtype == "object"]:
        raise GraphError(f"the input {text[0]!r} is text, and what makes {precision.upper()} takes numbers alone")


def quantized_graph(context: ExportContext, precision: Precision, fp32: Path) -> tuple[Path, search.SearchResult]:
    """Search for the best recipe of INT8 or FP8; return its graph and what the search found.

    Raises:
        GraphError: no quantizer could quantize it.
    """
    source, request, digest = context.source, context.request, manifest.sha256(fp32)
    _refuse_text(source.spec, precision)

    def quantized(recipe: Recipe) -> Path:
        def make(place: Path) -> None:
            int8.quantize(fp32, place / f"{precision}.onnx", source.calibration, recipe, batched=source.spec.batched)

        place, _ = context.cache.step("quantized", make, graph=digest, data=context.data, recipe=recipe)
        return place / f"{precision}.onnx"

    trials = search.TrialContext(
        source.spec, source.search, context.reference["search"], context.judged("search"),
        len(source.calibration), quantized, precision,
    )  # fmt: skip
    with context.progress.step(f"{precision} graph") as done:

        def make(place: Path) -> None:
            result = search.search(
                trials, fp32, place / f"{precision}.onnx",
                mode=request.search, budget_s=request.search_budget_s, report=done.now,
            )  # fmt: skip
            (place / "search.json").write_text(json.dumps(asdict(result)))

        def read(place: Path) -> search.SearchResult:
            raw = json.loads((place / "search.json").read_text())
            result: search.SearchResult = manifest.decode(search.SearchResult, raw)
            return result

        asked = [request.search, request.search_budget_s, source.spec.limits[precision]]
        place, cached = context.cache.step(
            precision, make, reusable=lambda place: read(place).complete, graph=digest, data=context.data, asked=asked
        )
        result = read(place)
        done(result.summary, cached=cached)
    return place / f"{precision}.onnx", result
