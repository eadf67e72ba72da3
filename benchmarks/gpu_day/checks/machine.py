"""The machine: its driver, its GPUs, and the versions of all that is between them and a model."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.gpu_day import command
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from deploy.triton import environment

# The driver that CUDA 13, and so Triton 25.08 and later with TensorRT 11, needs on Linux (NVIDIA's "minor version
# compatibility"). Data centre GPUs also run it on older branches by the image's forward compatibility package.
LEAST_DRIVER = 580
# Turing: what TensorRT 11 and the names of config.pbtxt begin with.
LEAST_CAPABILITY = (7, 5)
_PACKAGES = ("torch", "tensorrt", "tensorrt-cu13", "tensorrt-cu13-bindings", "tensorrt-rtx-cu13", "onnx",
             "onnxruntime-gpu", "nvidia-modelopt", "tritonclient", "numpy", "cuda-bindings")  # fmt: skip
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_MPS_PIPE_DIRECTORY",
              "TRT_VERSION", "CUDA_VERSION", "NVIDIA_TRITON_SERVER_VERSION", "TRITON_SERVER_VERSION")  # fmt: skip


def look(day: Day, record: Record) -> None:
    """Write down all versions; hold the driver and the GPUs to what is needed, where there are any."""
    record.figure(
        system=f"{platform.platform()}, Python {platform.python_version()}",
        cpus=len(os.sched_getaffinity(0)),
        container=Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
        wsl=Path("/dev/dxg").exists(),
        shared_memory_mb=round(_free_bytes(Path("/dev/shm")) / 1e6),  # noqa: S108  # looked at, not written to
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )
    record.figure(packages=_packages(), tritonserver=_triton(), libraries=_libraries())
    gpus = _gpus()
    record.figure(**gpus)
    if day.device == "cpu":
        return
    driver = str(gpus["driver"])
    enough = int(driver.partition(".")[0]) >= LEAST_DRIVER
    record.check("the driver runs CUDA 13", enough, f"{driver}, needed is {LEAST_DRIVER} or later")
    for gpu in gpus["gpus"]:
        capability = tuple(int(part) for part in gpu["capability"].split("."))
        record.check(f"{gpu['name']} is one that TensorRT 11 knows", capability >= LEAST_CAPABILITY, gpu["capability"])
        migs = gpu["mig devices"]
        if gpu["mig"] == "enabled":
            told = f"{migs} slices; a process sees one: build the plan on the slice that serves it"
            record.check(f"{gpu['name']} has MIG slices", bool(migs), told if migs else "MIG is on, and none is made")
    _torch_sees(record)


def tests(day: Day, record: Record) -> None:
    """Run the tests that need a GPU.

    Raises:
        SkippedError: pytest is not installed.
    """
    if importlib.util.find_spec("pytest") is None:
        raise SkippedError("pytest is not installed here")
    code, said = command.run(day, "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-q", "tests")
    record.check("the tests that are marked `gpu` pass", code == 0, said.strip().splitlines()[-1])


def _gpus() -> dict[str, Any]:
    """Ask NVIDIA's management library, which is a part of the driver: also where there is no nvidia-smi."""
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return {"driver": None, "driver_said": str(error), "gpus": []}
    try:
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return {
            "driver": str(nvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            "gpus": [_gpu(handle) for handle in handles],
        }
    finally:
        nvml.nvmlShutdown()


def _gpu(handle: Any) -> dict[str, Any]:
    import pynvml as nvml

    def asked(what: Any, *arguments: Any) -> Any:
        try:
            return what(handle, *arguments)
        except nvml.NVMLError as error:  # not every GPU can tell
            return str(error)

    capability, memory, mig = (
        asked(nvml.nvmlDeviceGetCudaComputeCapability), asked(nvml.nvmlDeviceGetMemoryInfo),
        asked(nvml.nvmlDeviceGetMigMode),
    )  # fmt: skip
    return {
        "name": str(asked(nvml.nvmlDeviceGetName)),
        "uuid": str(asked(nvml.nvmlDeviceGetUUID)),
        "capability": ".".join(map(str, capability)) if isinstance(capability, tuple) else str(capability),
        "memory MB": round(memory.total / 1e6) if hasattr(memory, "total") else str(memory),
        "used MB": round(memory.used / 1e6) if hasattr(memory, "used") else "",
        "power limit W": _watts(asked(nvml.nvmlDeviceGetEnforcedPowerLimit)),
        "graphics MHz at most": asked(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_GRAPHICS),
        "mig": ("enabled" if mig[0] else "off") if isinstance(mig, list | tuple) else "not supported",
        "mig devices": _mig_devices(handle),
    }


def _mig_devices(handle: Any) -> int:
    import pynvml as nvml

    found = 0
    try:
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                found += 1
            except nvml.NVMLError_NotFound:
                continue
    except nvml.NVMLError:
        pass
    return found


def _watts(milliwatts: Any) -> Any:
    return milliwatts / 1000 if isinstance(milliwatts, int) else milliwatts


def _torch_sees(record: Record) -> None:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    told = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    record.check("PyTorch sees a GPU", seen > 0, f"{told}: {seen}")


def _packages() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _triton() -> str:
    triton = environment.find(lambda line: print(line, flush=True))  # which it is, it says when it serves
    kind = "native" if triton.native else f"of nvidia-pytriton {environment.pinned('nvidia-pytriton')}"
    return f"{triton.executable} ({kind})"


def _libraries() -> dict[str, str]:
    """Return the versions that the libraries themselves tell, of those that the loader finds."""
    found = {}
    for name in ("libnvinfer.so.11", "libnvinfer.so.10"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        raw = int(library.getInferLibVersion())  # major · 10000 + minor · 100 + patch
        found[name] = f"{raw // 10000}.{raw % 10000 // 100}.{raw % 100}"
    return found


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
