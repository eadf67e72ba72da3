"""Which TensorRT plan a GPU loads, and whether this TensorRT can.

A plan runs only on the TensorRT version and the GPU architecture that it was built with.
"""

from python_based.config import ModelConfig
from python_based.errors import ModelError


def read(config: ModelConfig, capability: str, tensorrt: str) -> tuple[str, bytes]:
    """Read the plan for a GPU, by the rule of Triton's native backend; return its name and content.

    Args:
        capability: The GPU's compute capability, "9.0".
        tensorrt: The version of TensorRT that is to load it.

    Raises:
        ModelError: there is no plan for this GPU, it is none, or another TensorRT built it.
    """
    file = config.cc_files.get(capability) or config.default_file or "model.plan"
    try:
        plan = (config.directory / file).read_bytes()
    except FileNotFoundError:
        others = ", ".join(sorted(path.name for path in config.directory.glob("*.plan"))) or "none"
        raise ModelError(
            f"version {config.directory.name} has no {file}, the plan for a GPU of compute capability {capability}; "
            f"its plans: {others}. Build it on this machine: python -m export … --target tensorrt"
        ) from None
    built_by = version(plan)
    if built_by is None:
        raise ModelError(f"{file} is no TensorRT plan")
    if built_by != ".".join(tensorrt.split(".")[:4]):
        raise ModelError(f"{file} was built by TensorRT {built_by}, this server has {tensorrt}: build it anew")
    return file, plan


def version(plan: bytes) -> str | None:
    """Read which TensorRT built a plan, None if it is no plan: at byte 24, after the tag, are the version's parts."""
    if len(plan) < 28 or plan[:4] != b"ftrt":
        return None
    return ".".join(str(part) for part in plan[24:28])
