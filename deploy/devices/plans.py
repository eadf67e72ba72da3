"""The plans that a server is given: whether its TensorRT loads them, and on which GPU they were measured."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts import manifest
from contracts.engines.plans import same_version, version_of
from contracts.errors import ManifestError
from contracts.manifest import Engine
from deploy.devices import fit
from deploy.devices.driver import Gpu


def not_loaded(root: Path, gpus: Sequence[Gpu], tensorrt: str) -> dict[str, str]:
    """Return {model whose plan this TensorRT cannot load: why}. The header of a plan has the version that built it.

    Args:
        root: What the server is given.
        gpus: Those it sees; where none is known, every plan of a version is looked at.
        tensorrt: The server's version, "11.1.0.106".
    """
    found = {}
    for version, needed in fit.served_plans(root, gpus):
        files = sorted(set(needed.values())) if gpus else sorted(path.name for path in version.glob("*.plan"))
        reasons = [why for file in files if (why := _why_not(version / file, tensorrt))]
        if reasons:
            found[version.parent.name] = "; ".join(reasons)
    return found


def measured_elsewhere(root: Path, gpus: Sequence[Gpu]) -> Iterator[str]:
    """Say of each plan that was built and timed on another GPU than the one that serves it, what that may cost."""
    for version, needed in fit.served_plans(root, gpus):
        try:
            engines = {choice.file: choice.engine for choice in manifest.read(version).choices}
        except ManifestError:
            continue  # nothing is known of it
        for gpu, file in needed.items():
            engine = engines.get(file)
            if engine is not None and engine.gpu is not None and engine.gpu != gpu.name:
                yield f"{version.parent.name} on {gpu}: {file} was built and timed on {engine.gpu}; {_may(engine)}"


def _why_not(plan: Path, tensorrt: str) -> str:
    if not plan.is_file():
        return ""  # that is said otherwise
    built_by = version_of(plan)
    if built_by is None:
        return f"{plan.name} is no TensorRT plan"
    if same_version(built_by, tensorrt):
        return ""
    return (
        f"{plan.name} was built by TensorRT {built_by}, and this server has {tensorrt}: build it anew, "
        "python -m export … --target tensorrt"
    )


def _may(engine: Engine) -> str:
    if engine.hardware_compatible:
        return "it runs on Ampere and everything newer, and one that is built here is faster"
    if engine.compatibility == "same_compute_capability":
        return "it runs on all of its compute capability, and another precision may be the fastest here"
    return "it was built for that model alone, and may be slow here or not load"
