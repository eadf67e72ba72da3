"""The steps of an export that make something, each kept in the cache: reference answers and graphs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cli.progress import Progress
from contracts import manifest
from contracts.manifest import Recipe
from export import graphs
from export.cache import Cache
from export.context import ENDS, ExportContext
from export.errors import GraphError
from export.precision import fp16, int8, search
from export.proof import gates
from export.proof.runners import Batch, length, predict, take
from export.source.base import ExportSource

# Samples whose every intermediate tensor is looked at for FP16.
_FP16_SAMPLES = 64


def reference_outputs(source: ExportSource, cache: Cache, progress: Progress) -> Mapping[str, Batch]:
    """Run the reference on every split, and at the min, opt and max of the dynamic dimensions.

    Returns:
        {"search", "held-out", "min", "opt" or "max": its outputs}.

    Raises:
        GraphError: it gives inf or nan itself.
    """
    batches: dict[str, Batch] = {"search": source.search.inputs, "held-out": source.held_out.inputs}
    batches |= {end: source.inputs_at(end) for end in ENDS}
    data = [source.origin.sha256, source.origin.data_fingerprint, source.spec.inputs, source.spec.outputs]
    with progress.step("reference", total=sum(length(b) for b in batches.values())) as done:

        def make(place: Path) -> None:
            run = source.reference()
            for name, batch in batches.items():
                size = min(source.spec.batch.max, 64)
                np.savez(place / f"{name}.npz", **predict(run, batch, size, done.advance))  # type: ignore[arg-type]

        place, cached = cache.step("reference", make, data=data, sizes=[length(b) for b in batches.values()])
        outputs = {name: dict(np.load(place / f"{name}.npz")) for name in batches}
        for name, values in ((n, v) for out in outputs.values() for n, v in out.items()):
            if not np.isfinite(values).all():
                raise GraphError(f"the reference itself gives inf or nan as {name!r}", hint="mend the model first")
        right = gates.accuracy(gates.answers(outputs["held-out"], source.spec), source.held_out.labels)
        figure = "" if right is None else f"accuracy {right:.4f} on "
        done(f"{figure}{len(source.held_out):,} held-out samples", cached=cached)
    return outputs


def fp32_graph(context: ExportContext) -> Path:
    """Make the graph that FP16 and INT8 are made from.

    Raises:
        GraphError: PyTorch could not export it.
    """
    with context.progress.step("fp32 graph") as done:
        place, cached = context.cache.step(
            "fp32",
            lambda place: context.source.write_graph(place / "fp32.onnx"),
            source=context.source.origin.sha256,
            spec=[context.source.spec.inputs, context.source.spec.outputs],
        )
        model = graphs.load(place / "fp32.onnx")
        done(f"{len(model.graph.node)} nodes, {len(graphs.heavy_nodes(model))} of them heavy", cached=cached)
    return place / "fp32.onnx"


def fp16_graph(context: ExportContext, fp32: Path) -> tuple[Path, tuple[str, ...]]:
    """Make the FP16 graph; return it and the layers of it that are kept in FP32, each with the reason.

    Raises:
        GraphError: ModelOpt could not convert it.
    """
    samples = take(context.source.calibration, slice(_FP16_SAMPLES))

    def make(place: Path) -> None:
        kept = fp16.convert(fp32, place / "fp16.onnx", samples)
        (place / "kept.json").write_text(json.dumps([str(k) for k in kept]))

    with context.progress.step("fp16 graph") as done:
        place, cached = context.cache.step("fp16", make, graph=manifest.sha256(fp32), data=context.data)
        kept = tuple(json.loads((place / "kept.json").read_text()))
        done(_kept(kept), cached=cached)
    return place / "fp16.onnx", kept


def _kept(kept: Sequence[str]) -> str:
    return f"{len(kept)} layers kept in FP32, the first: {kept[0]}" if kept else "no layer needs FP32"


def int8_graph(context: ExportContext, fp32: Path) -> tuple[Path, search.SearchResult]:
    """Search for the best INT8 recipe; return its graph and what the search found.

    Raises:
        GraphError: no quantizer could quantize it.
    """
    source, request, digest = context.source, context.request, manifest.sha256(fp32)

    def quantized(recipe: Recipe) -> Path:
        def make(place: Path) -> None:
            int8.quantize(fp32, place / "int8.onnx", source.calibration, recipe)

        place, _ = context.cache.step("quantized", make, graph=digest, data=context.data, recipe=recipe)
        return place / "int8.onnx"

    trials = search.TrialContext(
        source.spec, source.spec.limits["int8"], source.search, context.reference["search"],
        source.calibration, quantized,
    )  # fmt: skip
    with context.progress.step("int8 graph") as done:

        def make(place: Path) -> None:
            result = search.search(
                trials, fp32, place / "int8.onnx",
                mode=request.search, budget_s=request.search_budget_s, report=done.now,
            )  # fmt: skip
            (place / "search.json").write_text(json.dumps(asdict(result)))

        def read(place: Path) -> search.SearchResult:
            raw = json.loads((place / "search.json").read_text())
            result: search.SearchResult = manifest.decode(search.SearchResult, raw)
            return result

        asked = [request.search, request.search_budget_s, source.spec.limits["int8"]]
        place, cached = context.cache.step(
            "int8", make, reusable=lambda place: read(place).complete, graph=digest, data=context.data, asked=asked
        )
        result = read(place)
        done(result.summary, cached=cached)
    return place / "int8.onnx", result
