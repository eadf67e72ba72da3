"""The machine: its driver, its GPUs, and the versions of all that is between them and a model."""

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.gpu_day import command
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from contracts.engines import library
from deploy.devices import driver, fit
from deploy.devices.driver import Driver
from deploy.triton import environment

_PACKAGES = ("torch", "tensorrt", "tensorrt-cu13", "tensorrt-cu13-bindings", "tensorrt-rtx-cu13", "onnx",
             "onnxruntime-gpu", "nvidia-modelopt", "tritonclient", "numpy", "cuda-bindings")  # fmt: skip
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_MPS_PIPE_DIRECTORY",
              "TRT_VERSION", "CUDA_VERSION", "NVIDIA_TRITON_SERVER_VERSION", "TRITON_SERVER_VERSION")  # fmt: skip

_BUSY_PERCENT = 10


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
    tensorrt, lacking = library.installed()
    record.figure(packages=_packages(), tritonserver=_triton(), tensorrt_library=tensorrt or lacking)
    found = driver.ask()
    record.figure(driver=found and found.version, driver_cuda=found and found.cuda, gpus=_rows(found) if found else [])
    if day.device == "cpu":
        return
    wrong = fit.findings(found, day.repository, os.environ)
    record.check("driver and GPUs run CUDA 13 and TensorRT 11", not wrong, "; ".join(wrong))
    if found is None:
        return
    busy = _in_use()
    record.figure(before_the_day=busy)
    told = ", ".join(f"{row['used MB']} MB and {row['busy %']} % of {row['name']}" for row in busy)
    idle = all(row["busy %"] < _BUSY_PERCENT for row in busy)
    record.check("nothing else computes on the GPU, or its times are not ours", idle, told)
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


def _rows(found: Driver) -> list[dict[str, Any]]:
    return [
        {
            "name": gpu.name,
            "uuid": gpu.uuid,
            "capability": gpu.capability,
            "memory MB": round(gpu.memory_bytes / 1e6),
            "MIG": "off" if gpu.slices is None else f"{len(gpu.slices)} slices",
        }
        for gpu in found.gpus
    ]


def _in_use() -> list[dict[str, Any]]:
    """Return how much of each GPU's memory and time is taken."""
    import pynvml as nvml

    nvml.nvmlInit()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [_taken(handle) for handle in handles]
    finally:
        nvml.nvmlShutdown()


def _taken(handle: Any) -> dict[str, Any]:
    import pynvml as nvml

    try:
        busy = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:  # in MIG mode, and in WSL 2 of some drivers
        busy = 0
    used = round(int(nvml.nvmlDeviceGetMemoryInfo(handle).used) / 1e6)
    return {"name": str(nvml.nvmlDeviceGetName(handle)), "used MB": used, "busy %": busy}


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


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
