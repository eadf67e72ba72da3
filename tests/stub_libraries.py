"""Shared libraries that stand in for NVIDIA's, as far as something is asked of them: compiled in half a second."""

import shutil
import subprocess
from pathlib import Path

import pytest

# What libnvinfer says of itself.
TENSORRT = """
int getInferLibMajorVersion(void) { return %d; }
int getInferLibMinorVersion(void) { return %d; }
int getInferLibPatchVersion(void) { return %d; }
int getInferLibBuildVersion(void) { return %d; }
"""
# libcuda with two GPUs; told to, it fails.
CUDA = """
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { const char *told = getenv("STUB_CUDA_ERROR"); return told ? atoi(told) : 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device ? "NVIDIA L4" : "NVIDIA H100", length);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? (device ? 8 : 9) : attribute == 76 ? (device ? 9 : 0) : -1;
    return 0;
}
"""


def compiled(folder: Path, name: str, source: str) -> Path:
    """Compile `source` to the shared library `name`, whose other symbols are never called."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: sudo apt-get install gcc libc6-dev")
    library = folder / name
    (folder / f"{name}.c").write_text(source)
    flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(library)]
    subprocess.run([compiler, *flags, str(folder / f"{name}.c")], check=True, capture_output=True)
    return library


def tensorrt(folder: Path, version: str, also: str = "", name: str = "libnvinfer.so.11") -> Path:
    """Compile a TensorRT that says it has this version."""
    return compiled(folder, name, TENSORRT % tuple(map(int, version.split("."))) + also)
