"""The export in order: read the checkpoint, make every precision, prove it, choose, publish.

The two files a release can hold, and what serves them:
  model.onnx   the fastest proven variant on this machine's CPU; onnxruntime
  model.plan   the fastest proven engine on this machine's GPU; TensorRT (target "tensorrt" only)
"""

import importlib.metadata
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from contracts import manifest, repository
from contracts.manifest import Choice, Gate, Manifest, Source, Variant
from contracts.spec import Precision
from export import engine, gates
from export.errors import CompileError, GraphError, RefusedError
from export.precision import variant_graph
from export.progress import Progress
from export.runners import PlanRunner, Runner, median_latency_ms, onnx_runner, predict
from training.checkpoints import Checkpoint
from training.families import Family
from training.lineage import git_state

Target = Literal["cpu", "tensorrt"]

# A lower precision must be at least this much faster than the best higher one to be worth its error. Two graphs
# that onnxruntime computes alike have been 7 % apart on a shared machine.
_WORTH_IT = 0.9
_PACKAGES = ("torch", "onnx", "onnxruntime-gpu", "tensorrt", "tensorrt-cu13", "tensorrt-rtx-cu13", "numpy")


@dataclass(frozen=True)
class HeldOut:
    """The test split and what the checkpoint answers on it."""

    inputs: NDArray[Any]  # [N, …]
    labels: NDArray[np.int64]  # [N]
    reference: NDArray[np.float32]  # the checkpoint's logits [N, classes]

    @property
    def checkpoint_accuracy(self) -> float:
        return gates.accuracy(self.reference, self.labels)


@dataclass(frozen=True)
class Proven:
    """A variant with everything needed to publish it."""

    variant: Variant
    graph: Path
    plan: bytes | None  # None unless the target is "tensorrt"


def run(
    family: Family,
    checkpoint: Checkpoint,
    *,
    precisions: Sequence[Precision],
    target: Target,
    calibration_images: int,
    model_directory: Path,
    work: Path,
    progress: Progress,
) -> Manifest:
    """Export `checkpoint` and publish the next version of the family's network.

    Args:
        model_directory: The network's folder in the model repository.
        work: Keeps the graphs of all variants, refused ones too.

    Raises:
        GraphError: a variant could not be made.
        EngineError: TensorRT, or the GPU for the target tensorrt, is missing.
        RefusedError: no variant passed its gates.
        PublishError: the version could not be written.
    """
    engine.require(_library(target))
    data = family.data()
    with progress.step("checkpoint") as done:
        held_out = _held_out(checkpoint, data)
        done(f"accuracy {held_out.checkpoint_accuracy:.4f} on {len(held_out.labels):,} test images")
    calibration = data.split("train")[0][:calibration_images]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    proven = []
    for precision in precisions:
        with progress.step(f"{precision} graph"):
            graph = variant_graph(precision, checkpoint.module, family.spec, calibration, work)
        proven.append(_prove(precision, graph, family, held_out, target, progress))
    passing = [p for p in proven if p.variant.passed]
    if not passing:
        raise RefusedError(
            f"no variant of {family.spec.model} passed its gates; nothing was published",
            note="\n  ".join(f"{p.variant.precision}: {_failures(p.variant.gates)}" for p in proven),
            hint="train longer, or look at the limits in the family's spec.py",
        )
    measured, choices = _measure_and_choose(passing, family, held_out.inputs, progress)
    latencies = {m.precision: m for m in measured}
    variants = tuple(latencies.get(p.variant.precision, p.variant) for p in proven)
    with progress.step("publish") as done, repository.new_version(model_directory) as staged:
        for choice in choices:
            _write(choice, passing, staged.directory)
        release = Manifest(
            family=family.name,
            model=family.spec.model,
            version=staged.version,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            source=_source(checkpoint),
            tools=_tools(),
            calibration_images=len(calibration),
            test_images=len(held_out.labels),
            checkpoint_accuracy=held_out.checkpoint_accuracy,
            variants=variants,
            choices=choices,
            files=manifest.files_of(staged.directory),
        )
        manifest.write(release, staged.directory)
        done(f"{family.spec.model} version {staged.version}")
    return release


def _held_out(checkpoint: Checkpoint, data: Any) -> HeldOut:
    inputs, labels = data.split("test")

    def run(batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        with torch.inference_mode():
            return {"logits": checkpoint.module(torch.from_numpy(batch.copy())).numpy()}

    return HeldOut(inputs, labels, predict(run, inputs, batch=500))


def _prove(
    precision: Precision, graph: Path, family: Family, held_out: HeldOut, target: Target, progress: Progress
) -> Proven:
    """Run the graph on the whole test split; if it passes, have TensorRT build it; on a GPU, prove that too."""
    spec = family.spec
    with progress.step(f"{precision} proof", total=len(held_out.labels)) as done:
        logits = predict(onnx_runner(graph, spec), held_out.inputs, spec.batch.max, done.advance)
        proofs = gates.prove(logits, held_out.reference, held_out.labels, spec.limits[precision])
        variant = Variant(
            precision=precision,
            accuracy=gates.accuracy(logits, held_out.labels),
            gates=proofs,
            size_bytes=graph.stat().st_size,
            sha256=manifest.sha256(graph),
        )
        done(f"accuracy {variant.accuracy:.4f}" if variant.passed else f"REFUSED: {_failures(variant.gates)}")
    if not variant.passed:
        return Proven(variant, graph, plan=None)
    with progress.step(f"{precision} engine") as done:
        try:
            built = engine.build(graph, spec, _library(target))
        except CompileError as error:
            refused = Gate("compiled by TensorRT", 0, 1, "at least")
            done(f"REFUSED: {error}")
            return Proven(replace(variant, gates=(*variant.gates, refused)), graph, plan=None)
        facts = built.facts
        share = ", ".join(f"{part:.0%} {dtype}" for dtype, part in facts.dtype_share.items())
        done(f"{facts.library}: {facts.size_bytes / 1e6:.2f} MB, {share}")
    if target == "tensorrt":
        with progress.step(f"{precision} engine proof", total=len(held_out.labels)) as done:
            with PlanRunner(built.plan, spec) as runner:
                logits = predict(runner, held_out.inputs, spec.batch.max, done.advance)
            proofs = gates.prove(logits, held_out.reference, held_out.labels, spec.limits[precision])
            facts = replace(facts, gates=proofs)
            done("passed" if facts.passed else f"REFUSED: {_failures(proofs)}")
    # A plan that fails its own proof is not served; the graph that passed still may be.
    plan = built.plan if target == "tensorrt" and facts.passed else None
    return Proven(replace(variant, engine=facts), graph, plan)


def _measure_and_choose(
    passing: Sequence[Proven], family: Family, inputs: NDArray[Any], progress: Progress
) -> tuple[list[Variant], tuple[Choice, ...]]:
    """Time every passing variant per file it could be served as, and choose the fastest for each."""
    spec = family.spec
    measured = {p.variant.precision: p.variant for p in passing}
    choices = []
    with ExitStack() as open_plans:
        runners: dict[str, dict[str, Runner]] = {
            "model.onnx": {p.variant.precision: onnx_runner(p.graph, spec) for p in passing}
        }
        plans = {p.variant.precision: p.plan for p in passing if p.plan is not None}
        if plans:
            runners["model.plan"] = {
                name: open_plans.enter_context(PlanRunner(plan, spec)) for name, plan in plans.items()
            }
        for file, candidates in runners.items():
            with progress.step(f"{file} latency") as done:
                figures = median_latency_ms(candidates, inputs, (spec.batch.min, spec.batch.opt))
                for precision, by_batch in figures.items():
                    variant = measured[cast("Precision", precision)]
                    measured[variant.precision] = replace(variant, latency_ms={**variant.latency_ms, file: by_batch})
                timed = [variant for variant in measured.values() if file in variant.latency_ms]
                choices.append(choose(file, timed, spec.batch.opt))
                done(choices[-1].reason)
    return list(measured.values()), tuple(choices)


def choose(file: str, variants: Sequence[Variant], batch: int) -> Choice:
    """The fastest of `variants` at `batch`; between near equals, the more precise (they come in that order)."""
    best, *others = variants
    for other in others:
        if other.latency_ms[file][str(batch)] < _WORTH_IT * best.latency_ms[file][str(batch)]:
            best = other
    fastest = best.latency_ms[file][str(batch)]
    ratios = [f"{v.precision} takes {v.latency_ms[file][str(batch)] / fastest:.2f}×" for v in variants if v is not best]
    reason = f"{best.precision}: {fastest:.3f} ms at batch {batch}" + "".join(f"; {r}" for r in ratios)
    return Choice(file, best.precision, reason)


def _write(choice: Choice, passing: Sequence[Proven], directory: Path) -> None:
    proven = next(p for p in passing if p.variant.precision == choice.precision)
    if choice.file == "model.plan":
        assert proven.plan is not None  # only plans were candidates
        (directory / choice.file).write_bytes(proven.plan)
    else:
        shutil.copyfile(proven.graph, directory / choice.file)
        if manifest.sha256(directory / choice.file) != proven.variant.sha256:
            raise GraphError(
                f"{proven.graph} changed after it was proven",
                hint="was another export of the family running? Run the same command again",
            )


def _source(checkpoint: Checkpoint) -> Source:
    lineage = checkpoint.lineage
    return Source(
        checkpoint=checkpoint.path.name,
        checkpoint_sha256=checkpoint.sha256,
        data_fingerprint=lineage.data_fingerprint,
        mlflow_run_id=lineage.mlflow_run_id,
        git_commit=lineage.git_commit,
        git_dirty=lineage.git_dirty,
    )


def _tools() -> dict[str, str]:
    found = {"python": platform.python_version()}
    commit, dirty = git_state()
    if commit is not None:
        found["this repository"] = commit + ("-dirty" if dirty else "")
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        found["gpu"] = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _library(target: Target) -> engine.Library:
    return "tensorrt" if target == "tensorrt" else "tensorrt_rtx"


def _failures(proofs: Sequence[Gate]) -> str:
    return "; ".join(str(gate) for gate in proofs if not gate.passed)
