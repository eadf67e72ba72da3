"""A Python of this machine, and what it says of itself."""

import functools
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 20
# The paths are those of the installation that a virtual environment stands on.
_ASK = """
import json, os, sys, sysconfig
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "build": sys.version,
    "libraries": sysconfig.get_config_var("LIBDIR"),
    "standard_library": os.path.dirname(os.__file__),
    "has_headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs."""

    executable: Path
    version: str  # "3.12"
    build: str  # sys.version
    libraries: Path | None  # the directory of its shared library, if it was built with one
    standard_library: Path
    has_headers: bool  # what compiles against it finds Python.h

    def __str__(self) -> str:
        return f"Python {self.version} ({self.executable})"


@functools.cache
def own() -> Interpreter:
    """Return the Python that this project runs with."""
    found = ask(sys.executable)
    assert found is not None, f"{sys.executable} runs, and does not run"
    return found


def ask(name: str) -> Interpreter | None:
    """Ask the Python that is called `name`; None where there is none, or one that does not run (pyenv's shims)."""
    if (executable := shutil.which(name)) is None:
        return None
    try:
        command = [executable, "-I", "-c", _ASK]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        said = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(
        executable=Path(executable),
        version=said["version"],
        build=said["build"],
        libraries=Path(said["libraries"]) if said["libraries"] else None,
        standard_library=Path(said["standard_library"]),
        has_headers=said["has_headers"],
    )
