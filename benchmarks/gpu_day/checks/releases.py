"""Something to serve: a checkpoint, and releases of it with plans of every precision."""

import shutil
from collections.abc import Mapping
from typing import Any

from benchmarks.gpu_day import command, needs
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from contracts import manifest, repository
from contracts.manifest import Manifest

_SHORT = ("--preset", "demo", "--trainer.max_epochs", "1")
_EVIDENCE = (manifest.FILE_NAME, "report.html", "report.md")


def checkpoint(day: Day, record: Record) -> None:
    """Train for an epoch, where a family is to be exported that has no checkpoint.

    Raises:
        SkippedError: there is one, or none is needed.
        StepError: the training failed.
    """
    family, *more = day.export
    if family.startswith("-"):
        raise SkippedError("no family of ours is exported")
    if more:
        raise SkippedError(f"it is named: {' '.join(more)}")
    command.must(day, "training", "fit", family, *_SHORT)
    record.check("trained", True, "for one epoch: its answers are poor, and as good as any to compare")


def export(day: Day, record: Record) -> None:
    """Export with all precisions; keep the manifest and the report among the evidence.

    Raises:
        StepError: the export failed.
    """
    target = ("--target", "tensorrt") if day.device == "gpu" else ()
    where = ("--repository", day.repository, "--no-register")
    command.must(day, "export", *day.export, *target, *where)
    folder = needs.network(day)
    assert folder is not None  # the export said that it has published one
    version = folder / str(repository.versions(folder)[-1])
    release = manifest.read(version)
    kept = day.folder / "release"
    kept.mkdir(exist_ok=True)
    for name in _EVIDENCE:
        if (version / name).exists():
            shutil.copyfile(version / name, kept / name)
    record.figure(model=release.model, variants=_variants(release), medians=_medians(release))
    for choice in release.choices:
        record.check(f"{choice.file} is published", True, choice.reason)
    for variant in release.variants:
        told = [str(gate) for gate in variant.gates if not gate.passed]
        told += [str(gate) for gate in (variant.engine.gates if variant.engine else ()) if not gate.passed]
        record.check(f"{variant.precision} passed its gates", not told, "; ".join(told))
    if day.device == "gpu":
        record.check("a plan is published", bool(needs.plans(day)), ", ".join(p.name for p in needs.plans(day)))
    served = release.served is not None
    record.check("a Triton has served it before it was published", served)


def _variants(release: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "precision": variant.precision,
            "score": variant.score,
            "graph MB": variant.size_bytes / 1e6,
            "engine": variant.engine.library if variant.engine else "",
            "engine MB": variant.engine.size_bytes / 1e6 if variant.engine else None,
            "built in s": variant.engine.build_s if variant.engine else None,
            "computes in": _shares(variant.engine.dtype_share) if variant.engine else "",
        }
        for variant in release.variants
    ]


def _medians(release: Manifest) -> list[dict[str, Any]]:
    return [
        {"precision": variant.precision, "file": file, **{f"{b} rows, ms": ms for b, ms in timing.median_ms.items()}}
        for variant in release.variants
        for file, timing in variant.timings.items()
    ]


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.0%} {dtype}" for dtype, share in shares.items())
