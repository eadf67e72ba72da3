"""Which proven variant a server is given as which file: the fastest one that passed."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from contracts.manifest import Choice, Variant
from contracts.samples import Batch
from contracts.spec import USUAL_PRECISIONS, Precision
from export.context import ExportContext
from export.errors import RefusedError
from export.proof import enough, gates, plans, timing
from export.proof.plan_runner import PlanRunner
from export.proof.runners import onnx_runner
from export.proof.timing import Clock
from export.prove import ProvenVariant

CPU_FILE = "model.onnx"
_FROM_PYTHON_ROUNDS = 5


@dataclass(frozen=True)
class _Candidate:
    """What a variant would be served by as one file, and what times it."""

    clock: Clock
    plan: PlanRunner | None = None


def choose(context: ExportContext, proven: Sequence[ProvenVariant]) -> tuple[list[ProvenVariant], tuple[Choice, ...]]:
    """Time every passing variant per file it could be served as, and choose for each.

    Raises:
        RefusedError: no variant passed its gates, or no plan where plans were asked for.
    """
    passing = _passing(context, proven)
    batches = timing.chunks(context.source.held_out, context.source.spec)
    variants, choices = {p.variant.precision: p.variant for p in proven}, []
    with ExitStack() as opened:
        for file, candidates in _candidates(context, passing, opened).items():
            with context.progress.step(f"{file} latency") as done:
                clocks = {name: c.clock for name, c in candidates.items()}
                samples = timing.measure(clocks, batches)
                if timing.is_disturbed(samples):
                    samples = timing.measure(clocks, batches)
                choice, timed = timing.choose_fastest(
                    file, [variants[p] for p in candidates], samples, context.source.spec.usual_batch
                )
                timed = [_as_timed(variant, file, candidates, batches) for variant in timed]
                variants |= {variant.precision: variant for variant in timed}
                choice = _with_its_engine(choice, variants[choice.precision])
                choices += _of_all_files(choice)
                done(choice.reason)
    return [replace(p, variant=variants[p.variant.precision]) for p in proven], tuple(choices)


def _passing(context: ExportContext, proven: Sequence[ProvenVariant]) -> list[ProvenVariant]:
    model = context.source.spec.model
    passing = [p for p in proven if p.variant.passed]
    if not passing:
        raise RefusedError(
            f"no variant of {model} passed its gates; nothing was published",
            note="\n  ".join(f"{p.variant.precision}: {gates.failures(p.variant.gates)}" for p in proven),
            hint=_what_to_do(proven),
        )
    if lacking := enough.lacking([p.variant for p in proven]):
        raise _undecided(context, lacking, passing[0].variant.precision)
    if context.request.engines.library == "tensorrt" and not any(p.plan for p in passing):
        engines = [p.variant.engine.gates for p in passing if p.variant.engine]
        raise RefusedError(
            f"no plan of {model} passed its gates; nothing was published",
            note="; ".join(gates.failures(proofs) for proofs in engines),
            hint="without --target tensorrt the graphs that passed are published for a CPU",
        )
    if not any(p.variant.precision in USUAL_PRECISIONS for p in passing):
        raise RefusedError(
            f"no variant of {model} that a CPU serves passed its gates; nothing was published",
            note=f"{', '.join(p.variant.precision for p in passing)} passed, and {CPU_FILE} is served by onnxruntime",
            hint="a release has both: add fp32 to --precision",
        )
    return passing


def _candidates(
    context: ExportContext, passing: Sequence[ProvenVariant], opened: ExitStack
) -> dict[str, dict[Precision, _Candidate]]:
    """Return {file: {precision: what could be served as it}}, highest precision first."""
    found: dict[str, dict[Precision, _Candidate]] = {
        CPU_FILE: {
            p.variant.precision: _Candidate(timing.wall_clock(onnx_runner(p.graph, context.outputs)))
            for p in passing
            if p.variant.precision in USUAL_PRECISIONS
        }
    }
    for p in passing:
        if p.plan is not None and p.variant.engine is not None:
            plan = opened.enter_context(PlanRunner(p.plan.read_bytes(), context.source.spec))
            file = plans.own_file(p.variant.engine)
            found.setdefault(file, {})[p.variant.precision] = _Candidate(plan.gpu_ms, plan)
    return found


def _as_timed(
    variant: Variant, file: str, candidates: Mapping[Precision, _Candidate], batches: Mapping[int, Batch]
) -> Variant:
    """Add to a plan's timing how it was timed, and what a call of it from Python costs beside."""
    plan = candidates[variant.precision].plan
    if plan is None:
        return variant
    called = timing.measure({variant.precision: timing.wall_clock(plan)}, batches, rounds=_FROM_PYTHON_ROUNDS)
    told = replace(variant.timings[file], how=plan.how, from_python_ms=timing.medians(called[variant.precision]))
    return timing.with_timing(variant, file, told)


def _undecided(context: ExportContext, lacking: Sequence[Variant], passed: Precision) -> RefusedError:
    """Refuse to publish a lower precision in the place of a higher one that was neither proven nor refused."""
    names = " and ".join(variant.precision for variant in lacking)
    needed = max(gate.needed or 0 for variant in lacking for gate in variant.gates)
    return RefusedError(
        f"{len(context.source.held_out):,} held-out samples are too few to tell whether {names} of "
        f"{context.source.spec.model} is good enough; nothing was published",
        note="\n  ".join(f"{variant.precision}: {gates.failures(variant.gates)}" for variant in lacking),
        hint=f"hold out about {needed:,}, or raise the limits of {names}; {passed} alone, if that is what you want: "
        f"--precision {passed}",
    )


# What mends a gate that failed, by the beginning of its id; the first that is found is what matters most.
_MENDS = (
    ("contract", "mend the spec, or export the graph again with its dynamic dimensions dynamic"),
    ("made", "what the message says; the graph may do without what cannot be converted"),
    ("quantized", "what the message says; the graph may do without what cannot be converted"),
    ("compiled", "what TensorRT does not take, ONNX Runtime may serve: tensorrt = false in the spec"),
    ("finite", "numbers are too large for it: scale them in the network, or give a higher precision limits"),
    ("qdq_symmetric", "TensorRT takes signed, symmetric Q/DQ alone: --search always tries the other quantizers"),
    ("computed_share", "a lower computed_share in the spec, if that is enough; or leave that precision out"),
    ("same_shape", "give the outputs the shapes that the samples expect, or batch = false"),
)
_NUMBERS = (
    "compare the figures with the limits in the spec: those are too tight, or the graph is not what the reference is"
)


def _what_to_do(proven: Sequence[ProvenVariant]) -> str:
    """Say what mends the highest precision: where that fails, those below do for the same reason or worse."""
    failed = [gate for gate in proven[0].variant.gates if not gate.passed]
    if needed := max((gate.needed or 0 for gate in failed), default=0):
        return f"hold out about {needed:,} samples, or raise the limit in the spec to what these can show"
    for begin, mend in _MENDS:
        if any(gate.id.startswith(begin) for gate in failed):
            return mend
    if all(gate.id == "metric_drop" for gate in failed):
        return "the limit is below what this precision costs: raise drop in the spec, or train longer"
    return _NUMBERS


def _with_its_engine(choice: Choice, chosen: Variant) -> Choice:
    """Return the choice of a plan with its engine, and the GPU in its reason: another may find another one fastest."""
    if choice.file == CPU_FILE or chosen.engine is None:
        return choice
    reason = f"{choice.reason}; {chosen.timings[choice.file].how} on {plans.measured_on(chosen.engine)}"
    sha256 = chosen.engine.graph_sha256 or chosen.sha256
    return replace(choice, reason=reason, engine=chosen.engine, graph_sha256=sha256)


def _of_all_files(choice: Choice) -> list[Choice]:
    """Return the choice as it is, or of a plan one for each file that it is published as."""
    files = plans.plan_files(choice.engine) if choice.engine is not None else [choice.file]
    return [replace(choice, file=file) for file in files]
