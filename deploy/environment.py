"""Where `tritonserver` comes from: the container's own, or the pip-installed one in an environment of its own.

The pip-installed server (nvidia-pytriton) brings the real server and its Python backend. Its stubs need
numpy<2 and libpython, so it lives in `.venv-server`, never mixed with the project's environment.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts import layout
from deploy.errors import SetupError

HOME = Path(os.environ.get("SERVER_ENVIRONMENT", layout.ROOT / ".venv-server")).resolve()

_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_LOCK_FILE = Path(__file__).parent / "server.lock"
_BACKENDS = Path(__file__).parent / "backends"
_CONTAINER = Path("/opt/tritonserver/bin/tritonserver")


@dataclass(frozen=True)
class Triton:
    """A tritonserver that can be started."""

    executable: Path
    arguments: tuple[str, ...] = ()  # that this installation always needs
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of ours
    native: bool = True  # has the native backends, TensorRT's among them


def find(say: Callable[[str], None]) -> Triton:
    """The container's own tritonserver, one on PATH, or the pip-installed one, made on first use.

    Args:
        say: Is told what is being done when that takes long.

    Raises:
        SetupError: the server environment could not be made.
    """
    on_path = shutil.which("tritonserver")
    for native in (_CONTAINER, Path(on_path) if on_path else None):
        if native and native.exists():
            return Triton(native)
    return pip_installed(say)


def pip_installed(say: Callable[[str], None]) -> Triton:
    """The pip-installed tritonserver, in `.venv-server`.

    Raises:
        SetupError: the environment could not be made.
    """
    packages = HOME / "lib" / f"python{_PYTHON}" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    _make(server, say)
    library_path = [packages / "nvidia_pytriton.libs", _directory_of_libpython()]
    return Triton(
        executable=server / "bin" / "tritonserver",
        arguments=(
            f"--backend-directory={HOME / 'backends'}",
            f"--cache-directory={server / 'caches'}",
        ),
        environment={
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, library_path)),
            "PYTHONPATH": str(packages),
            # Models run with this interpreter's standard library, whatever `python3` is on PATH.
            "PATH": f"{HOME / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        },
        native=False,
    )


def _make(server: Path, say: Callable[[str], None]) -> None:
    """Create HOME from the lock file and our backends, once; a second process waits; a half-made one is redone."""
    sources = sorted(_BACKENDS.glob("*/model.py"))
    recipe = b"".join(path.read_bytes() for path in (_LOCK_FILE, *sources)) + sys.version.encode()
    stamp, wanted = HOME / "made-from", hashlib.sha256(recipe).hexdigest()
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with HOME.with_name(f"{HOME.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        say(f"Making the server environment in {layout.shown(HOME)} (once, a minute or two)")
        if HOME.exists():
            if not (HOME / "pyvenv.cfg").exists():
                raise SetupError(f"{HOME} exists and is not a virtual environment; it is left alone")
            shutil.rmtree(HOME)
        try:
            venv.create(HOME, with_pip=True)
            pip: list[str | Path] = [
                HOME / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--requirement",
                _LOCK_FILE,
            ]
            subprocess.run(pip, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise SetupError(
                f"could not make the server environment {layout.shown(HOME)}",
                note=_last_lines(getattr(error, "output", None) or str(error)),
                hint="is the package index reachable, and is python3-venv installed? Then run the command again",
            ) from error
        _assemble_backends(server, sources)
        stamp.write_text(wanted)


def _assemble_backends(server: Path, ours: list[Path]) -> None:
    """One backend directory: Triton's Python backend with this Python's stub, and ours.

    Copies, not links: Triton refuses a backend library that lies outside its backend directory.
    """
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        raise SetupError(
            f"the pip-installed Triton has no stub for Python {_PYTHON}",
            note=f"it has: {', '.join(sorted(p.name for p in stub.parent.parent.iterdir()))}",
        )
    shutil.copytree(server / "backends" / "python", HOME / "backends" / "python")
    shutil.copy2(stub, HOME / "backends" / "python")
    for model in ours:
        shutil.copytree(model.parent, HOME / "backends" / model.parent.name)


def _directory_of_libpython() -> Path:
    """The directory of the shared libpython, which the stub links.

    Debian's python3.11 comes without it. Where apt can be asked, the package is unpacked into HOME, which
    needs no root.
    """
    name = f"libpython{_PYTHON}.so.1.0"
    unpacked = HOME / "libpython"
    for directory in (sysconfig.get_config_var("LIBDIR"), "/usr/lib/x86_64-linux-gnu", unpacked):
        if directory and (Path(directory) / name).exists():
            return Path(directory)
    package = name.partition(".so")[0]
    try:
        with tempfile.TemporaryDirectory(dir=HOME) as scratch:
            for command in (["apt-get", "download", package], ["sh", "-c", "dpkg -x *.deb ."]):
                subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True)
            unpacked.mkdir(exist_ok=True)
            for library in Path(scratch).rglob(f"{package}.so.*"):
                if not library.is_symlink():
                    partial = unpacked / f"{name}.{os.getpid()}"
                    shutil.copy2(library, partial)
                    partial.rename(unpacked / name)  # in one step: another process may be starting
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"Triton's Python backend needs {name}, which this Python does not have",
            note=_last_lines(getattr(error, "stderr", None) or str(error)),
            hint=f"install it: sudo apt-get update && sudo apt-get install {package}",
        ) from error
    return unpacked


def _last_lines(text: str | bytes, count: int = 3) -> str:
    if isinstance(text, bytes):  # venv's own child does not decode
        text = text.decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-count:])
