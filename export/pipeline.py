"""The export in order: hold the configurations to the spec, make every precision, prove it, choose, publish.

The files a release can hold, and what serves them:
  model.onnx            the fastest proven variant on this machine's CPU; onnxruntime
  model.sm<CC>.plan     the fastest proven engine on a GPU of that compute capability; TensorRT
  manifest.json         everything that was measured, and the digests of the other files
  report.html, .md      the same for people
  model.sig             a signature of them all, if a key is configured
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cli.progress import Progress
from contracts import manifest
from contracts.manifest import Manifest, Recipe
from export import graphs
from export.cache import Cache
from export.context import ENDS, ExportContext, ExportRequest
from export.errors import GraphError, RefusedError
from export.precision import fp16, int8, search
from export.proof import contract, engine, gates
from export.proof.runners import Batch, length, predict, take
from export.prove import not_made, prove
from export.release.choose import choose
from export.release.publish import describe, publish
from export.source.base import ExportSource

# Samples whose every intermediate tensor is looked at for FP16.
_HALF_SAMPLES = 64


def run(
    source: ExportSource, request: ExportRequest, *, model_directory: Path, cache: Cache, progress: Progress
) -> Manifest:
    """Export `source` and publish the next version of its model.

    Args:
        model_directory: The network's folder in the model repository.
        cache: Holds what earlier exports made.

    Raises:
        ConfigError: a configuration is missing or is none.
        GraphError: a variant could not be made.
        EngineError: TensorRT, its right version, or the GPU for it is missing.
        RefusedError: a configuration disagrees with the spec, or no variant passed its gates.
        PublishError, SignatureError: the version could not be written or signed; nothing was published.
    """
    engine.require(request.engines, request.server_tensorrt)
    contracts = contract.config_gates(model_directory, source.spec)
    if not all(gate.passed for gate in contracts):
        raise RefusedError(
            f"the configuration of {source.spec.model} is not what the spec says; nothing was published",
            note=gates.failures(contracts),
            hint=f"mend it in {model_directory}",
        )
    context = ExportContext(source, request, cache, progress, reference(source, cache, progress))
    fp32 = _fp32(context)
    proven, found = [], None
    for precision in request.precisions:
        try:
            if precision == "int8":
                graph, found = _int8(context, fp32)
                proven.append(prove(context, "int8", graph, recipe=found.recipe))
            elif precision == "fp16":
                graph, kept = _fp16(context, fp32)
                proven.append(prove(context, "fp16", graph, kept_fp32=kept))
            else:
                proven.append(prove(context, "fp32", fp32))
        except GraphError as error:  # a converter that does not know the graph shall not cost the other precisions
            progress.say(f"  ✗ {precision} REFUSED: {error}")
            proven.append(not_made(precision, error))
    proven, choices = choose(context, proven)
    release = describe(context, proven, found, contracts, choices)
    release = publish(context, release, proven, model_directory)
    cache.prune()
    return release


def reference(source: ExportSource, cache: Cache, progress: Progress) -> Mapping[str, Batch]:
    """What the reference answers on every split and at both ends of every dynamic dimension."""
    batches: dict[str, Batch] = {"search": source.search.inputs, "held-out": source.held_out.inputs}
    batches |= {end: source.at(end) for end in ENDS}
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


def _fp32(context: ExportContext) -> Path:
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


def _fp16(context: ExportContext, fp32: Path) -> tuple[Path, tuple[str, ...]]:
    samples = take(context.source.calibration, slice(_HALF_SAMPLES))

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


def _int8(context: ExportContext, fp32: Path) -> tuple[Path, search.Found]:
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
            found = search.search(
                trials, fp32, place / "int8.onnx",
                mode=request.search, budget_s=request.search_budget_s, say=done.now,
            )  # fmt: skip
            (place / "found.json").write_text(json.dumps(asdict(found)))

        def read(place: Path) -> search.Found:
            found: search.Found = manifest.decode(search.Found, json.loads((place / "found.json").read_text()))
            return found

        asked = [request.search, request.search_budget_s, source.spec.limits["int8"]]
        place, cached = context.cache.step(
            "int8", make, keep=lambda place: read(place).complete, graph=digest, data=context.data, asked=asked
        )
        found = read(place)
        done(found.ended, cached=cached)
    return place / "int8.onnx", found
