"""What NVIDIA's driver says of itself and its GPUs, by the management library that is a part of it.

Also where there is no nvidia-smi: in WSL 2, and in images that have the driver's libraries alone.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver has."""

    index: int
    name: str  # "NVIDIA H200"
    uuid: str  # "GPU-…"
    capability: str  # "9.0"
    memory_bytes: int
    slices: tuple[str, ...] | None = None  # the UUIDs of its MIG slices; None: MIG is off, or not supported

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name}, {self.capability})"


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver."""

    version: str  # "580.65.06"
    cuda: str  # the newest CUDA that it runs, "13.0"
    gpus: tuple[Gpu, ...]

    @property
    def branch(self) -> int:
        """Its major version."""
        return int(self.version.partition(".")[0])


def ask() -> Driver | None:
    """Ask the driver; None where there is none, or it does not answer."""
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        cuda = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        gpus = tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        return Driver(str(nvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}", gpus)
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """List the GPUs that a CUDA program sees, as CUDA_VISIBLE_DEVICES says: indices or the beginnings of UUIDs.

    What follows an entry that names none is not seen. A MIG slice stands for its GPU.
    """
    if (told := environment.get("CUDA_VISIBLE_DEVICES")) is None:
        return list(gpus)
    found = []
    for entry in (part.strip() for part in told.split(",")):
        named = next((gpu for gpu in gpus if _names(entry, gpu)), None)
        if named is None:
            break
        found.append(named)
    return found


def _names(entry: str, gpu: Gpu) -> bool:
    if entry.isdecimal():
        return int(entry) == gpu.index
    slices = gpu.slices or ()
    return bool(entry) and (gpu.uuid.startswith(entry) or any(uuid.startswith(entry) for uuid in slices))


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index,
        str(nvml.nvmlDeviceGetName(handle)),
        str(nvml.nvmlDeviceGetUUID(handle)),
        f"{major}.{minor}",
        int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        _slices(nvml, handle),
    )


def _slices(nvml: Any, handle: Any) -> tuple[str, ...] | None:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        if not current:
            return None
        most = int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except nvml.NVMLError:  # a GPU that knows nothing of it
        return None
    found = []
    for index in range(most):
        try:
            found.append(str(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))))
        except nvml.NVMLError:  # no slice has this number
            continue
    return tuple(found)
