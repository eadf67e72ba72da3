"""What a step needs of the machine and of the steps before it; what is lacking is said by name."""

import importlib.util
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import SkippedError
from contracts import manifest, repository
from deploy.devices import chosen
from export.errors import EngineError
from export.proof import engine


def check(needs: Iterable[str], day: Day) -> None:
    """Look for each.

    Raises:
        SkippedError: one is lacking.
    """
    for need in needs:
        if lacking := _NEEDS[need](day):
            raise SkippedError(lacking)


def has_gpu() -> bool:
    """Tell whether a CUDA program would see a GPU: also without nvidia-smi, and in WSL 2."""
    names, _ = chosen.gpus()
    return bool(names)


def network(day: Day) -> Path | None:
    """Return the folder of the network that this day has published; None before it has."""
    for folder in sorted(path for path in day.repository.glob("*") if path.is_dir()):
        versions = repository.versions(folder)
        if versions and (folder / str(versions[-1]) / manifest.FILE_NAME).is_file():
            return folder
    return None


def plans(day: Day) -> list[Path]:
    """List the plans of the newest version that this day has published."""
    if (folder := network(day)) is None:
        return []
    return sorted((folder / str(repository.versions(folder)[-1])).glob("*.plan"))


def _gpu(day: Day) -> str | None:
    if day.device == "cpu":
        return "a rehearsal on the CPU: it needs a GPU"
    names, reason = chosen.gpus()
    return None if names else reason


def _torch(day: Day) -> str | None:
    return None if importlib.util.find_spec("torch") else "PyTorch is not installed"


def _cuda(day: Day) -> str | None:
    if lacking := _gpu(day) or _torch(day):
        return lacking
    import torch

    if torch.cuda.is_available():
        return None
    return f"PyTorch {torch.__version__} sees no GPU: is it a build for the CPU?"


def _tensorrt(day: Day) -> str | None:
    if day.device == "cpu":
        return None  # the export compiles with TensorRT-RTX
    try:
        engine.load("tensorrt")
    except EngineError as error:
        return str(error)
    return None


def _native(day: Day) -> str | None:
    on_path = shutil.which("tritonserver")
    if Path("/opt/tritonserver/backends/tensorrt").is_dir() or on_path:
        return None
    return "this Triton is the pip-installed one, without the native TensorRT backend: only that captures graphs"


def _release(day: Day) -> str | None:
    return None if network(day) else "the export has published nothing"


def _plan(day: Day) -> str | None:
    if day.device == "cpu":
        return "a rehearsal on the CPU: there are no plans"
    return None if plans(day) else "the export has published no plan"


_NEEDS: dict[str, Callable[[Day], str | None]] = {
    "gpu": _gpu,
    "torch": _torch,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "native": _native,
    "release": _release,
    "plan": _plan,
}
