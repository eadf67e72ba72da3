"""The GPUs that CUDA's own library sees: every container that computes on one has it, whatever else it was given."""

import json
import subprocess
import sys

_LIBRARY = "libcuda.so.1"
_TIMEOUT_S = 30  # a driver that hangs shall not hang a server
# In a process of its own: CUDA does not survive a fork, and keeps memory on the GPU for whoever began with it.
_ASK = """
import ctypes, json, sys
cuda = ctypes.CDLL(sys.argv[1])
count, major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
for call in (lambda: cuda.cuInit(0), lambda: cuda.cuDeviceGetCount(ctypes.byref(count))):
    if error := call():
        sys.exit(f"CUDA error {error}")
found = []
for device in range(count.value):
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # compute capability, as cuda.h numbers attributes
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    found.append(f"{name.value.decode()} ({major.value}.{minor.value})")
print(json.dumps(found))
"""


def names(library: str = _LIBRARY) -> tuple[list[str], str]:
    """Return each GPU, "NVIDIA H100 (9.0)", that CUDA sees; without any, why."""
    command = [sys.executable, "-c", _ASK, library]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"CUDA did not answer within {_TIMEOUT_S} s"
    if done.returncode != 0:
        return [], (done.stderr.strip() or f"it ended with exit code {done.returncode}").splitlines()[-1]
    found = list(json.loads(done.stdout))
    return found, "" if found else "CUDA sees no GPU"
