"""The versions of what an export was made with."""

import hashlib
import importlib.metadata
import platform

from contracts import layout
from training.lineage import git_state

_PACKAGES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime-gpu",
    "nvidia-modelopt",
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-rtx-cu13",
    "numpy",
)


def code_digest() -> str:
    """Return the SHA-256 of this repository's own part in what an export makes."""
    digest = hashlib.sha256()
    for stage in ("contracts", "export", "training/families"):
        for path in sorted((layout.ROOT / stage).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Return {package: version} of everything that decides what the graphs and engines are."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tool_versions() -> dict[str, str]:
    """Return the package versions, the commit of this repository and the GPU, for the manifest."""
    found = package_versions()
    commit, dirty = git_state()
    if commit is not None:
        found["this repository"] = commit + ("-dirty" if dirty else "")
    return found | gpu()


def gpu() -> dict[str, str]:
    """Return {"gpu": name and compute capability} of the one that PyTorch uses, {} without one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    major, minor = torch.cuda.get_device_capability()
    return {"gpu": f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"}
