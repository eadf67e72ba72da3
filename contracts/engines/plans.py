"""A TensorRT plan as a file: which TensorRT built it, and under which name a GPU looks for it."""

from pathlib import Path

# What Dockerfile.triton's server has. A plan of another version does not load there.
SERVER_TENSORRT = "11.1.0.106"
# The GPUs that config.pbtxt's cc_model_filenames name a plan for: Turing to Blackwell.
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")
DEFAULT_FILE = "model.plan"  # what a GPU of any other compute capability loads

_TAGS = (b"ftrt", b"vtrt")  # TensorRT's and TensorRT-RTX's
_HEADER_BYTES = 28


def version_of(plan: bytes | Path) -> str | None:
    """Read the TensorRT version that built a plan from its header; None if it is no plan.

    The header is a tag ("ftrt", TensorRT-RTX: "vtrt"), and at byte 24 major, minor, patch and build: what NVIDIA's
    trtexec --getPlanVersionOnly reads.

    Args:
        plan: Its content, or the file.
    """
    if isinstance(plan, Path):
        with plan.open("rb") as stream:
            plan = stream.read(_HEADER_BYTES)
    if len(plan) < _HEADER_BYTES or plan[:4] not in _TAGS:
        return None
    return ".".join(str(part) for part in plan[24:28])


def same_version(actual: str, wanted: str) -> bool:
    """Tell whether `actual` is `wanted` as far as that says: "11.1.0.106" is the same as "11.1"."""
    return f"{actual}.".startswith(f"{wanted.rstrip('.')}.")


def cc_model_filenames() -> dict[str, str]:
    """Return {compute capability: the file such a GPU loads}, as in config.pbtxt."""
    return {cc: f"model.sm{cc.replace('.', '')}.plan" for cc in COMPUTE_CAPABILITIES}
