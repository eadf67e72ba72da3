"""The export in order: hold the configurations to the spec, make every precision, prove it, choose, publish.

The files a release can hold, and what serves them:
  model.onnx            the fastest proven variant on this machine's CPU; onnxruntime
  model.sm<CC>.plan     the fastest proven engine on a GPU of that compute capability; TensorRT
  manifest.json         everything that was measured, and the digests of the other files
  report.html, .md      the same for people
  model.sig             a signature of them all, if a key is configured
"""

from pathlib import Path

from cli.progress import Progress
from contracts.manifest import Gate, Manifest
from contracts.spec import ModelSpec, Precision
from export import steps
from export.cache import Cache
from export.context import ExportContext, ExportRequest
from export.errors import GraphError, RefusedError
from export.precision.search import Found
from export.proof import contract, engine, gates
from export.prove import Proven, not_made, prove
from export.release.choose import choose
from export.release.publish import describe, publish
from export.source.base import ExportSource


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
    contracts = _configured(model_directory, source.spec)
    answers = steps.reference(source, cache, progress)
    context = ExportContext(source, request, cache, progress, answers)
    fp32 = steps.fp32_graph(context)
    proven, found = [], None
    for precision in request.precisions:
        variant, searched = _proven(context, precision, fp32)
        proven.append(variant)
        found = searched or found
    proven, choices = choose(context, proven)
    release = describe(context, proven, found, contracts, choices)
    release = publish(context, release, proven, model_directory)
    cache.prune()
    return release


def _configured(model_directory: Path, spec: ModelSpec) -> tuple[Gate, ...]:
    """The gates of the configurations; before any work is done, as what is wrong there is quickly mended."""
    contracts = contract.config_gates(model_directory, spec)
    if not all(gate.passed for gate in contracts):
        raise RefusedError(
            f"the configuration of {spec.model} is not what the spec says; nothing was published",
            note=gates.failures(contracts),
            hint=f"mend it in {model_directory}",
        )
    return contracts


def _proven(context: ExportContext, precision: Precision, fp32: Path) -> tuple[Proven, Found | None]:
    """One precision, made from the FP32 graph and held against the reference; what the search for it found."""
    found = None
    try:
        if precision == "int8":
            graph, found = steps.int8_graph(context, fp32)
            return prove(context, "int8", graph, recipe=found.recipe), found
        if precision == "fp16":
            graph, kept = steps.fp16_graph(context, fp32)
            return prove(context, "fp16", graph, kept_fp32=kept), None
        return prove(context, "fp32", fp32), None
    except GraphError as error:  # a converter that does not know the graph shall not cost the other precisions
        context.progress.say(f"  ✗ {precision} REFUSED: {error}")
        return not_made(precision, error), found
