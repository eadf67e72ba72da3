"""The TensorRT library of this machine, and its version as the library itself says it.

  python -m contracts.engines.library 11.1.0.106     exits with 1 unless it is there and of that version

The version of a package or of an environment variable says what somebody meant to install: NVIDIA's Python bindings
have theirs as a constant, whatever library they are loaded over.
"""

import ctypes
import subprocess
import sys

from contracts import layout
from contracts.engines.plans import SERVER_TENSORRT, same_version

# What the bindings and Triton's backend of that version load.
LIBRARY = f"libnvinfer.so.{SERVER_TENSORRT.partition('.')[0]}"

_PARTS = ("Major", "Minor", "Patch", "Build")
# To load it takes a second and hundreds of megabytes, and a broken one may end the process.
_ASK = "import sys; from contracts.engines.library import said; print(said(sys.argv[1]))"
_TIMEOUT_S = 60


def said(library: str) -> str:
    """Return the version that a TensorRT library says it has, "11.1.0.106". It stays loaded in this process.

    Raises:
        OSError: it cannot be loaded.
        AttributeError: it is no TensorRT.
    """
    loaded = ctypes.CDLL(library)
    return ".".join(str(getattr(loaded, f"getInferLib{part}Version")()) for part in _PARTS)


def installed(library: str | None = None) -> tuple[str | None, str]:
    """Return the version of the TensorRT that is installed here, asked in another process, and why there is none."""
    library = library or LIBRARY
    command = [sys.executable, "-c", _ASK, library]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=layout.ROOT)
    except subprocess.TimeoutExpired:
        return None, f"{library} did not load within {_TIMEOUT_S} s"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    return None, (done.stderr.strip() or f"{library} ended with exit code {done.returncode}").splitlines()[-1]


def main(arguments: list[str]) -> int:
    """Print the version of the TensorRT that is installed here; return 0 only if it is the one that is wanted."""
    wanted = arguments[0] if arguments else SERVER_TENSORRT
    found, reason = installed()
    print(f"TensorRT {found}" if found else f"no TensorRT: {reason}")
    if found is not None and same_version(found, wanted):
        return 0
    print(
        f"error: this repository builds and serves plans of TensorRT {wanted}\n"
        "Hint: take the image that has it, or change the version in Dockerfile.triton, pyproject.toml, "
        "deploy/server-gpu.lock and contracts/engines/plans.py together",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
