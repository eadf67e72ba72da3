"""Which of a model's configurations a server takes, the GPU's or the CPU's, and why it is that one."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.devices import cuda, driver

Device = Literal["auto", "cpu", "gpu"]

_CPU = "cpu"  # configs/cpu.pbtxt, beside config.pbtxt
# What NVIDIA's driver makes on Linux, and what WSL 2 has in its place.
_NODES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


@dataclass(frozen=True)
class Chosen:
    """A configuration, and why."""

    config_name: str | None  # for --model-config-name; None: config.pbtxt, which is for a GPU
    why: str
    device: str  # "NVIDIA H100 (9.0)", "the CPU"
    absent: str = ""  # why there is no GPU, where one was looked for

    def __str__(self) -> str:
        file = f"configs/{self.config_name}.pbtxt" if self.config_name else "config.pbtxt"
        return f"Serving {file} on {self.device}: {self.why}"


def choose(device: Device, *, native: bool) -> Chosen:
    """Choose by what was asked for and what is here.

    Args:
        native: Whether the server has the native backends. The pip-installed one serves on a GPU only where that was
            asked for: its TensorRT is several GB of packages.
    """
    if device == "cpu":
        return Chosen(_CPU, "--device cpu", "the CPU")
    found, reason = gpus()
    if device == "gpu":
        return Chosen(None, "--device gpu", found, absent="" if found else reason)
    if not found:
        return Chosen(_CPU, reason, "the CPU", absent=reason)
    if not native:
        return Chosen(_CPU, f"the pip-installed server takes {found} only with --device gpu", "the CPU")
    return Chosen(None, "a GPU is here", found)


def gpus() -> tuple[str, str]:
    """Return the GPUs that a CUDA program sees here, in words, or "" and why there are none.

    The management library is asked first; where only CUDA's own is, as in a container that was given no more, that one.
    """
    if not any(node.exists() for node in _NODES):
        return "", f"no GPU is here: there is neither {' nor '.join(map(str, _NODES))}"
    known = driver.ask()
    if known is not None:
        names = [f"{gpu.name} ({gpu.capability})" for gpu in driver.visible(known.gpus)]
        told = os.environ.get("CUDA_VISIBLE_DEVICES")
        return ", ".join(names), f"CUDA sees none of the {len(known.gpus)} GPUs" + (
            f": CUDA_VISIBLE_DEVICES={told}" if told is not None else ""
        )
    names, reason = cuda.names()
    return ", ".join(names), f"there is a device for a GPU, but no driver that answers: {reason}"
