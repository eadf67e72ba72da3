"""Which proven variant a server is given as which file: the fastest one that passed."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from contracts.manifest import Choice
from contracts.spec import Precision
from export.context import ExportContext
from export.errors import RefusedError
from export.proof import engine, gates
from export.proof.runners import PlanRunner, Runner, onnx_runner
from export.prove import ProvenVariant
from export.release import timing


def choose(context: ExportContext, proven: Sequence[ProvenVariant]) -> tuple[list[ProvenVariant], tuple[Choice, ...]]:
    """Time every passing variant per file it could be served as, and choose for each.

    Raises:
        RefusedError: no variant passed its gates, or no plan where plans were asked for.
    """
    spec = context.source.spec
    passing = [p for p in proven if p.variant.passed]
    if not passing:
        raise RefusedError(
            f"no variant of {spec.model} passed its gates; nothing was published",
            note="\n  ".join(f"{p.variant.precision}: {gates.failures(p.variant.gates)}" for p in proven),
            hint=_what_to_do(proven),
        )
    variants, choices = {p.variant.precision: p.variant for p in proven}, []
    with ExitStack() as plans:
        runners: dict[str, dict[Precision, Runner]] = {
            "model.onnx": {p.variant.precision: onnx_runner(p.graph, context.outputs) for p in passing}
        }
        if context.request.engines.library == "tensorrt" and not any(p.plan for p in passing):
            engines = [p.variant.engine.gates for p in passing if p.variant.engine]
            raise RefusedError(
                f"no plan of {spec.model} passed its gates; nothing was published",
                note="; ".join(gates.failures(proofs) for proofs in engines),
                hint="without --target tensorrt the graphs that passed are published for a CPU",
            )
        for p in passing:
            if p.plan is not None and p.variant.engine is not None:
                run = plans.enter_context(PlanRunner(p.plan.read_bytes(), spec))
                runners.setdefault(engine.plan_files(p.variant.engine)[0], {})[p.variant.precision] = run
        for file, candidates in runners.items():
            with context.progress.step(f"{file} latency") as done:
                samples = timing.measure(candidates, timing.chunks(context.source.held_out, spec))
                choice, timed = timing.choose_fastest(
                    file, [variants[p] for p in candidates], samples, spec.usual_batch
                )
                choices += _of_all_files(choice, proven)
                variants |= {variant.precision: variant for variant in timed}
                done(choice.reason)
    return [replace(p, variant=variants[p.variant.precision]) for p in proven], tuple(choices)


def _what_to_do(proven: Sequence[ProvenVariant]) -> str:
    if any("so few samples" in gate.detail for p in proven for gate in p.variant.gates if not gate.passed):
        return "bring more samples, or raise the limit in the spec to what these can show"
    return "train longer, or look at the limits in the spec"


def _of_all_files(choice: Choice, proven: Sequence[ProvenVariant]) -> list[Choice]:
    """Return the choice as it is, or with a plan one for each file that the plan is published as."""
    chosen = next(p.variant for p in proven if p.variant.precision == choice.precision)
    if choice.file == "model.onnx" or chosen.engine is None:
        return [choice]
    files = engine.plan_files(chosen.engine)
    return [replace(choice, file=file, engine=chosen.engine, graph_sha256=chosen.sha256) for file in files]
