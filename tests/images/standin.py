"""A stand-in of NVIDIA's Triton image (nvcr.io/nvidia/tritonserver:*-py3), which is not to be had everywhere.

  python -m tests.images.standin         makes it, unless it is there, and prints its name

It has what Dockerfile.triton asks of that one: the user triton-server (1000:1000), /opt/tritonserver with a real
tritonserver (the pip-installed one of deploy/server.lock), an entry point script, Python 3.12 with a recent pip and
numpy 1.26, and a libnvinfer that says its version and no more. Its backend for ONNX Runtime is ours in Python; with
TRITON_ONNXRUNTIME=DIRECTORY it is the compiled libtriton_onnxruntime.so in there, over the library of the wheel.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from contracts import layout
from contracts.engines import library
from contracts.engines.plans import SERVER_TENSORRT
from deploy.triton import environment
from tests import stub_libraries
from tests.images import build, debian, podman
from tests.images.podman import NAMES, ImageError

WANTED_PYTHON = "3.12"  # Ubuntu 24.04's, on which NVIDIA's image stands
PIP = "pip>=26"

_HERE = Path(__file__).parent
_BACKENDS = layout.ROOT / "deploy" / "backends"
_SHARED = ("ort_session", "python_based")  # what our backends share, beside the Python backend
_SERVER_LOCK = layout.ROOT / "deploy" / "server.lock"
_NOT_COPIED = shutil.ignore_patterns("test", "tests", "site-packages", "__pycache__", "idlelib", "*.a", "config-3*")
_ENTRY_POINT = '#!/bin/sh\n# NVIDIA\'s looks at the driver and prints a banner.\nexec "$@"\n'


@dataclass(frozen=True)
class Python:
    """A Python that the stand-in gets."""

    version: str  # "3.12"
    home: Path | None  # the tree that is copied; None: Debian's own, which is in the base

    @property
    def packages(self) -> str:
        """Where its packages lie in the image, without the first slash."""
        return f"opt/python/lib/python{self.version}/site-packages" if self.home else _DEBIANS_PACKAGES


_DEBIANS_PACKAGES = f"usr/local/lib/python{debian.PYTHON}/dist-packages"


@cache
def image(version: str = WANTED_PYTHON) -> str:
    """Return the name of the stand-in with that Python, made once for each content.

    Raises:
        ImageError, SetupError: it cannot be made.
    """
    python = _find(version)
    if python.home is None and version != debian.PYTHON:
        podman.say(f"No Python {version} to copy is here: the stand-in has Debian's {debian.PYTHON}")
    name = f"triton:{python.version}-{_digest(python)}"
    if not podman.exists(f"{NAMES}/{name}"):
        podman.say("Making the stand-in of NVIDIA's Triton image (once; half a minute)")
        with tempfile.TemporaryDirectory(prefix="standin-") as scratch:
            _fill(Path(scratch, "root"), python)
            arguments = {"DEBIAN": debian.image()}
            build.build(_HERE / "triton.Dockerfile", name, context=Path(scratch), arguments=arguments, kind="base")
    return f"{NAMES}/{name}"


def _find(version: str) -> Python:
    """Find a Python of this version whose tree can be copied: a distribution's own lies all over its system."""
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    candidates = [Path(sys.base_prefix)] if version == ours else []
    on_path = shutil.which(f"python{version}")
    candidates += [Path(on_path).resolve().parent.parent] if on_path else []
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(pyenv.glob(f"versions/{version}*"), reverse=True)
    for home in candidates:
        shared = (home / "lib" / f"libpython{version}.so.1.0").is_file()
        if home != Path("/usr") and shared and (home / "bin" / f"python{version}").is_file():
            return Python(version, home)
    return Python(debian.PYTHON, None)


def _digest(python: Python) -> str:
    """Digest all that it is made of."""
    digest = hashlib.sha256(
        f"{python} {os.environ.get('TRITON_ONNXRUNTIME')} {SERVER_TENSORRT} {debian.name()}".encode()
    )
    sources = [Path(__file__), _HERE / "triton.Dockerfile", _SERVER_LOCK, Path(stub_libraries.__file__)]
    for path in (*sources, *sorted(_backends())):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _backends() -> Iterable[Path]:
    ours = [_BACKENDS / "onnxruntime", *(_BACKENDS / "python" / package for package in _SHARED)]
    return [path for each in ours for path in each.rglob("*.py")]


def _fill(root: Path, python: Python) -> None:
    """Put together what the image has beyond Debian."""
    if python.home:
        _copy_python(root, python, python.home)
    _install(root / python.packages)
    server = environment.pip_installed(podman.say).executable.parent.parent
    triton = root / "opt" / "tritonserver"
    for part in ("bin", "backends", "caches"):
        shutil.copytree(server / part, triton / part, symlinks=True)
    shutil.copy2(
        server / "python_backend_stubs" / python.version / "triton_python_backend_stub", triton / "backends/python"
    )
    shutil.copytree(server.parent.parent / "nvidia_pytriton.libs", triton / "libs")
    _add_onnxruntime(triton / "backends", root / python.packages)
    entry_point = root / "opt" / "nvidia" / "nvidia_entrypoint.sh"
    entry_point.parent.mkdir()
    entry_point.write_text(_ENTRY_POINT)
    entry_point.chmod(0o755)
    libraries = root / "usr" / "local" / "lib"
    libraries.mkdir(parents=True, exist_ok=True)
    stub_libraries.tensorrt(libraries, SERVER_TENSORRT, name=library.LIBRARY)
    places = root / "etc" / "ld.so.conf.d" / "standin.conf"
    places.parent.mkdir(parents=True)
    places.write_text("/opt/tritonserver/libs\n" + ("/opt/python/lib\n" if python.home else ""))


def _copy_python(root: Path, python: Python, home: Path) -> None:
    """Copy a tree of Python to /opt/python, and call it python3."""
    for part in ("bin", "lib", "include"):
        shutil.copytree(home / part, root / "opt" / "python" / part, symlinks=True, ignore=_NOT_COPIED)
    names = root / "usr" / "local" / "bin"
    names.mkdir(parents=True)
    for name in ("python3", f"python{python.version}"):
        (names / name).symlink_to(f"/opt/python/bin/python{python.version}")


def _install(packages: Path) -> None:
    """Install a recent pip and what Python models import, for the stand-in's Python; but for Pillow, as there."""
    [version] = re.findall(r"python(\d\.\d+)", str(packages))
    pins = re.findall(r"^(?!nvidia-pytriton|pillow)\w\S+==\S+", _SERVER_LOCK.read_text(), re.MULTILINE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={packages}"]
    pip += [f"--python-version={version}", "--only-binary=:all:", PIP, *pins]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"pip could not install what the stand-in's Python has:\n{done.stderr}")


def _add_onnxruntime(backends: Path, packages: Path) -> None:
    compiled = os.environ.get("TRITON_ONNXRUNTIME")
    if not compiled:
        shutil.copytree(_BACKENDS / "onnxruntime", backends / "onnxruntime")
        for package in _SHARED:
            shutil.copytree(_BACKENDS / "python" / package, backends / "python" / package)
        return
    place = backends / "onnxruntime"
    place.mkdir()
    for path in Path(compiled).glob("*.so*"):
        shutil.copy(path, place)
    [runtime] = packages.glob("onnxruntime/capi/libonnxruntime.so.1*")
    shutil.copy(runtime, place / "libonnxruntime.so.1")


if __name__ == "__main__":
    if reason := podman.missing():
        sys.exit(f"error: {reason}")
    print(image())
