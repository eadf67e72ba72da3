"""Puts a model's own packages before the server's, at the start of each Python model's process.

Lies with own_packages.pth among the packages of the Python that the processes run with, whose `site` imports it then.
Each instance of a Python model is a process of its own, so what one model has no other sees. MODEL_LAYERS is the folder
in which `python -m deploy environments build` installs them, a layer for each content of a requirements.lock. Runs
inside Triton; imports nothing of this project.
"""

import hashlib
import os
import site
import sys
from pathlib import Path

_STUB = "triton_python_backend_stub"


def _layer() -> Path | None:
    """Return the layer of the model that this process runs; None for any other process, and for a model without."""
    home = os.environ.get("MODEL_LAYERS")
    arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")  # sys.argv is not there yet
    if not home or len(arguments) < 2 or Path(os.fsdecode(arguments[0])).name != _STUB:
        return None
    lock = Path(os.fsdecode(arguments[1])).parent.parent / "requirements.lock"  # STUB …/MODEL/VERSION/model.py
    if not lock.is_file():
        return None
    # As deploy/layers/requirements.py names it.
    lines = [line.strip() for line in lock.read_text(encoding="utf-8-sig").splitlines()]
    pins = [line for line in lines if line and line[0] != "#"]
    if not pins:
        return None
    digest = hashlib.sha256("\n".join(pins).encode()).hexdigest()
    return Path(home, f"{digest[:16]}-{sys.version_info[0]}.{sys.version_info[1]}")


def _add(layer: Path) -> None:
    """Put the layer behind Python's own modules, and before any other package."""
    before = list(sys.path)
    site.addsitedir(str(layer))  # heeds .pth files, as for an environment
    added = [path for path in sys.path if path not in before]
    place = next((index for index, path in enumerate(before) if path.endswith("-packages")), len(before))
    sys.path[:] = [*before[:place], *added, *before[place:]]


if (_found := _layer()) is not None:
    if _found.is_dir():
        _add(_found)
    else:
        print("requirements.lock is not installed: python -m deploy environments build", file=sys.stderr)
