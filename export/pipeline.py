"""The export in order: hold the configurations to the spec, make every precision, prove it, choose, publish.

The files a release can hold, and what serves them:
  model.onnx            the fastest proven variant on this machine's CPU; onnxruntime
  model.sm<CC>.plan     the fastest proven engine on a GPU of that compute capability; TensorRT
  golden.npz            requests for it, with the reference's answers
  tables/               what the rest of its inputs is looked up in, of a model that takes entities
  release/              the configurations, and the ensembles and steps around the network, as they are now
  manifest.json         everything that was measured, and the digests of the other files
  report.html, .md      the same for people
  model.sig             a signature of them all, if a key is configured
"""

import logging
from pathlib import Path

from cli.progress import Progress
from contracts.errors import ProjectError
from contracts.manifest import Manifest
from contracts.spec import Precision
from export import steps
from export.cache import Cache
from export.context import ExportContext, ExportRequest
from export.errors import GraphError
from export.precision.search import SearchResult
from export.proof import contract, engine, enough
from export.prove import ProvenVariant, not_made, prove
from export.release.choose import choose
from export.release.publish import describe, publish
from export.source.base import ExportSource

_log = logging.getLogger(__name__)


def run(
    source: ExportSource, request: ExportRequest, *, model_directory: Path, cache: Cache, progress: Progress
) -> Manifest:
    """Export `source` and publish the next version of its model.

    Args:
        model_directory: The network's folder in the model repository.
        cache: Holds what earlier exports made.

    Raises:
        ModelConfigError: a configuration is missing or is none.
        SpecError: a table is not what is declared.
        SampleError: the held-out samples cannot show what the spec limits.
        GraphError: a variant could not be made.
        EngineError: TensorRT, its right version, or the GPU for it is missing.
        RefusedError: a configuration disagrees with the spec, no variant passed its gates, or no Triton serves it.
        PublishError, SignatureError: the version could not be written or signed; nothing was published.
    """
    if source.spec.without_tensorrt is None:
        engine.require(request.engines, request.server_tensorrt)
    config_gates = contract.check_configs(model_directory, source.spec)  # before any work: it is quickly mended
    source.declared_tables()
    own_reference = source.origin.compared_with is None
    enough.require(source.spec, request.precisions, source.held_out, own_reference=own_reference)
    reference = steps.reference_outputs(source, cache, progress)
    context = ExportContext(source, request, cache, progress, reference)
    for warning in context.warnings:
        progress.say(f"  warning: {warning}")
    fp32 = steps.fp32_graph(context)
    proven, search = [], None
    for precision in request.precisions:
        variant, searched = _make_and_prove(context, precision, fp32)
        proven.append(variant)
        search = searched or search
    proven, choices = choose(context, proven)
    release = describe(context, proven, search, config_gates, choices)
    release = publish(context, release, proven, model_directory)
    cache.prune()
    return release


def _make_and_prove(
    context: ExportContext, precision: Precision, fp32: Path
) -> tuple[ProvenVariant, SearchResult | None]:
    """Make one precision from the FP32 graph and prove it; return it and what the search for its recipe found."""
    search = None
    try:
        if precision in ("int8", "fp8"):
            graph, search = steps.quantized_graph(context, precision, fp32)
            return prove(context, precision, graph, recipe=search.recipe), search
        if precision in ("fp16", "bf16"):
            graph, kept = steps.half_graph(context, precision, fp32)
            return prove(context, precision, graph, kept_fp32=kept), None
        return prove(context, "fp32", fp32), None
    except GraphError as error:  # a converter that does not know the graph shall not cost the other precisions
        refused = error
    except ProjectError:  # the machine's, or the user's: it is the same for all
        raise
    except Exception as error:  # a fault of this project, and no reason to lose what can be made
        _log.exception("a bug, while making %s", precision)
        refused = GraphError(f"making it failed with a bug, {type(error).__name__}: {error}")
    context.progress.say(f"  ✗ {precision} REFUSED: {refused}")
    return not_made(precision, refused), search
