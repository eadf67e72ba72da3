"""Whether the GPUs of a machine can serve a repository: what Triton itself would say late, or not at all."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from contracts import model_config, repository
from contracts.errors import ModelConfigError
from contracts.model_config import ModelConfig
from deploy.devices import driver
from deploy.devices.driver import Driver, Gpu

# What CUDA 13 needs on Linux, by NVIDIA's table of minor version compatibility: Triton 25.08 and later, TensorRT 11.
# Data centre GPUs also run it on some older branches, by the compatibility package in the image.
LEAST_DRIVER = 580
# Turing, the oldest that CUDA 13 and TensorRT 11 have code for.
LEAST_CAPABILITY = (7, 5)


def findings(found: Driver | None, root: Path, environment: Mapping[str, str]) -> list[str]:
    """Say what will not go well when `root` is served on these GPUs, a line each; nothing where all is well."""
    if found is None:
        return ["NVIDIA's driver does not answer: is it loaded, and given to this container (docker run --gpus all)?"]
    gpus = driver.visible(found.gpus, environment)
    if not gpus:
        told = environment.get("CUDA_VISIBLE_DEVICES")
        return [f"CUDA sees none of the {len(found.gpus)} GPUs" + (f": CUDA_VISIBLE_DEVICES={told}" if told else "")]
    return [*_of_driver(found), *_of_order(found, environment), *_of_gpus(gpus), *_of_plans(gpus, root)]


def _of_driver(found: Driver) -> Iterator[str]:
    if found.branch < LEAST_DRIVER:
        yield (
            f"the driver is {found.version}, and CUDA 13 needs {LEAST_DRIVER} or later; on a data centre GPU an older "
            "one may do, by the compatibility package in the image"
        )


def _of_order(found: Driver, environment: Mapping[str, str]) -> Iterator[str]:
    by_number = any(part.strip().isdecimal() for part in environment.get("CUDA_VISIBLE_DEVICES", "").split(","))
    ordered = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if by_number and not ordered and len({gpu.name for gpu in found.gpus}) > 1:
        yield (
            "CUDA_VISIBLE_DEVICES has numbers, and CUDA counts GPUs of several kinds the fastest first, unlike "
            "nvidia-smi: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID"
        )


def _of_gpus(gpus: Sequence[Gpu]) -> Iterator[str]:
    for gpu in gpus:
        if _numbers(gpu.capability) < LEAST_CAPABILITY:
            least = ".".join(map(str, LEAST_CAPABILITY))
            yield f"{gpu} is older than what CUDA 13 and TensorRT 11 compile for, compute capability {least}"
        if gpu.slices == ():
            yield f"{gpu} is in MIG mode and has no slice: nvidia-smi mig -cgi PROFILE -C makes one"


def _of_plans(gpus: Sequence[Gpu], root: Path) -> Iterator[str]:
    for version, needed in served_plans(root, gpus):
        lacking = [f"{gpu} ({file})" for gpu, file in needed.items() if not (version / file).exists()]
        if lacking:
            yield (
                f"{version.parent.name} version {version.name} has no plan for {', '.join(lacking)}: export it on such "
                "a GPU, or name the others in CUDA_VISIBLE_DEVICES or the instance group's `gpus`"
            )


def served_plans(root: Path, gpus: Sequence[Gpu]) -> Iterator[tuple[Path, dict[Gpu, str]]]:
    """Yield the newest version of every model that TensorRT serves, and the file that each of its GPUs loads there."""
    for path in sorted(root.glob(f"*/{model_config.FILE_NAME}")):
        versions = repository.versions(path.parent)
        try:
            config = model_config.read(path)
        except ModelConfigError:
            continue  # who loads it will say so
        if versions and (config.platform == "tensorrt_plan" or config.backend == "tensorrt"):
            yield path.parent / str(versions[-1]), {gpu: plan_file(config, gpu) for gpu in _serving(config, gpus)}


def plan_file(config: ModelConfig, gpu: Gpu) -> str:
    """Return the file that Triton loads on this GPU."""
    named = config.cc_model_filenames.get(gpu.capability)
    return str(named or config.default_model_filename or "model.plan")


def _serving(config: ModelConfig, gpus: Sequence[Gpu]) -> list[Gpu]:
    """List the GPUs that the model's instances are on: all, unless its groups name some, as CUDA numbers them."""
    groups = list(config.instance_group)
    if not groups or any(not group.gpus for group in groups):
        return list(gpus)
    wanted = {index for group in groups for index in group.gpus}
    return [gpu for index, gpu in enumerate(gpus) if index in wanted]


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
