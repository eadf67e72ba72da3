"""Where `tritonserver` comes from: the container's own, or the pip-installed one in an environment of its own.

The pip-installed server (nvidia-pytriton) brings the real server and its Python backend. Its stubs need
numpy<2 and libpython, so it lives in `.venv-server`, never mixed with the project's environment.

In there, what is made from other lock files or backends is another directory: a running server keeps the
files that it was started with, however the checkout changes.
  .venv-server/packages-<digest>/   a virtual environment, from the lock files
  .venv-server/backends-<digest>/   a backend directory, from the above and deploy/backends
  .venv-server/layers/              packages that models have of their own: see deploy/layers
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cli.environments import LOG, InstallError, pip_install
from contracts import layout
from contracts.engines import library
from contracts.files import locks
from deploy.devices import chosen
from deploy.errors import SetupError

HOME = Path(os.environ.get("SERVER_ENVIRONMENT", layout.ROOT / ".venv-server")).resolve()

_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_DEPLOY = layout.ROOT / "deploy"
_LOCK_FILE = _DEPLOY / "server.lock"
_GPU_LOCK_FILE = _DEPLOY / "server-gpu.lock"
_BACKENDS = _DEPLOY / "backends"
_OWN_PACKAGES = Path("python", "own_packages")  # in there: what finds the packages that a model has of its own
_PYTHON_HOME = "environment"  # in a backend directory: where its Python looks for packages
_CONTAINER = Path("/opt/tritonserver/bin/tritonserver")
_STAMP = "made"  # a file in each finished directory, touched whenever that is used
_KEPT_S = 3600  # longer than it can take from asking for an environment to a server that runs from it


@dataclass(frozen=True)
class Triton:
    """A tritonserver that can be started."""

    executable: Path
    arguments: tuple[str, ...] = ()  # that this installation always needs
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of ours
    native: bool = True  # has the native backends, TensorRT's among them


def layers_home() -> Path:
    """Return the folder of the packages that models have of their own: MODEL_LAYERS, as an image sets it, else ours."""
    return Path(os.environ.get("MODEL_LAYERS", HOME / "layers")).resolve()


def pinned(package: str) -> str:
    """Return the version of a package that the server environment has."""
    return _version(package, _LOCK_FILE)


def tensorrt_version(triton: Triton) -> tuple[str | None, str]:
    """Return the version of the TensorRT that serves plans, and why it is not known.

    Of the image's own it is what the library says, of the pip-installed server what its lock names.
    """
    if triton.native:
        return library.installed()
    return _version("tensorrt-cu13", _GPU_LOCK_FILE), ""


def finds_own_packages(triton: Triton) -> bool:
    """Tell whether the processes of its Python models look for packages of their own; ours and the image's do."""
    if not triton.native:
        return True
    command = ["python3", "-c", f"import {_OWN_PACKAGES.name}"]
    return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0


def has_option(triton: Triton, option: str) -> bool:
    """Tell whether this tritonserver knows `--option`: one that it does not know ends it."""
    asked = subprocess.run(
        [str(triton.executable), "--help"],
        env={**os.environ, **triton.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return re.search(rf"^\s*--{re.escape(option)}\b", asked.stdout + asked.stderr, re.MULTILINE) is not None


def find(say: Callable[[str], None], *, gpu: bool = False) -> Triton:
    """Find the container's own tritonserver, one on PATH, or the pip-installed one, made on first use.

    Args:
        say: Is told what is being done when that takes long.
        gpu: Whether it shall serve TensorRT engines.

    Raises:
        SetupError: the server environment could not be made.
    """
    on_path = shutil.which("tritonserver")
    for native in (_CONTAINER, Path(on_path) if on_path else None):
        if native and native.exists():
            return Triton(native, environment={"MODEL_LAYERS": str(layers_home())})
    return pip_installed(say, gpu=gpu)


def pip_installed(say: Callable[[str], None], *, gpu: bool = False) -> Triton:
    """Return the pip-installed tritonserver, in `.venv-server`.

    Raises:
        SetupError: the environment could not be made, or `gpu` is asked of a machine without one.
    """
    if gpu and not chosen.gpus()[0]:
        raise SetupError("this machine has no NVIDIA GPU, or no driver for it", hint="serve on the CPU: --device cpu")
    locks = [_LOCK_FILE, _GPU_LOCK_FILE] if gpu else [_LOCK_FILE]
    with _alone():
        environment = _made("packages", locks, sys.version, lambda home: _install(home, gpu, say))
        packages = environment / "lib" / f"python{_PYTHON}" / "site-packages"
        server = packages / "pytriton" / "tritonserver"
        sources = sorted(_BACKENDS.rglob("*.py"))
        backends = _made("backends", sources, environment.name, lambda home: _assemble(home, server, environment))
        if not _is_read_only():
            _remove_unused({environment, backends})
    library_path = [packages / "nvidia_pytriton.libs", _directory_of_libpython()]
    return Triton(
        executable=server / "bin" / "tritonserver",
        arguments=(f"--backend-directory={backends}", f"--cache-directory={server / 'caches'}"),
        environment={
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, library_path)),
            "PYTHONPATH": str(packages),
            "MODEL_LAYERS": str(layers_home()),
            # Models run with the standard library and the packages of the first `python3` on PATH.
            "PATH": f"{backends / _PYTHON_HOME / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        },
        native=False,
    )


def _version(package: str, lock: Path) -> str:
    [version] = re.findall(rf"^{re.escape(package)}==([^\s;]+)", lock.read_text(), re.MULTILINE)
    return str(version)


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock under which HOME is filled: a second process waits, and finds it made.

    One that is read-only, as an image's, is whole: there is nothing to wait for.
    """
    if _is_read_only():
        yield
        return
    HOME.mkdir(parents=True, exist_ok=True)
    with locks.locked(HOME.with_name(f"{HOME.name}.lock")):
        yield


def _is_read_only() -> bool:
    """Tell whether HOME is there and we can change nothing in it: made when an image was, or by another user."""
    return HOME.is_dir() and not os.access(HOME, os.W_OK)


def _made(what: str, sources: Iterable[Path], also: str, make: Callable[[Path], None]) -> Path:
    """Return the directory in HOME that `make` fills, one for each content of `sources`; a half-made one is redone."""
    digest = hashlib.sha256(also.encode())
    for path in sources:
        digest.update(f"\0{path.parent.name}/{path.name}\0".encode() + path.read_bytes())
    home = HOME / f"{what}-{digest.hexdigest()[:12]}"
    if _is_read_only():
        if not (home / _STAMP).exists():
            raise SetupError(
                f"the server environment in {HOME} is not the one of this checkout, and cannot be written",
                hint="build the image again, or set SERVER_ENVIRONMENT to a folder of yours",
            )
        return home
    if not (home / _STAMP).exists():
        shutil.rmtree(home, ignore_errors=True)
        make(home)
        for path in (HOME, home, *home.rglob("*")):  # whatever our umask: the server may run as another user
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
    (home / _STAMP).touch()
    return home


def _remove_unused(needed: Collection[Path]) -> None:
    """Remove what was made from other sources, unless a process runs from it or may be about to."""
    others = [path for what in ("packages", "backends") for path in HOME.glob(f"{what}-*") if path not in needed]
    old = [path for path in others if not _used_lately(path / _STAMP)]
    if old:
        running = "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
        for path in old:
            if str(path) not in running:
                shutil.rmtree(path, ignore_errors=True)


def _used_lately(stamp: Path) -> bool:
    return stamp.exists() and time.time() - stamp.stat().st_mtime < _KEPT_S


def _install(home: Path, gpu: bool, say: Callable[[str], None]) -> None:
    """Make a virtual environment with what the lock files name."""
    how_long = "a minute or two" if not gpu else "TensorRT is several GB"
    say(f"Making the server environment in {layout.shown(HOME)} (once; {how_long})")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    log = HOME / LOG
    log.unlink(missing_ok=True)
    try:
        venv.create(home)
        for lock in (_LOCK_FILE, _GPU_LOCK_FILE) if gpu else (_LOCK_FILE,):
            pip_install(pip, lock, ["--no-deps", "--require-hashes"], home=home, log=log)
    except (InstallError, OSError) as error:
        note, hint = (error.note, error.hint) if isinstance(error, InstallError) else (str(error), None)
        failed = f"could not make the server environment in {layout.shown(HOME)}"
        raise SetupError(failed, note=note, hint=hint) from error


def _assemble(home: Path, server: Path, environment: Path) -> None:
    """Assemble one backend directory: Triton's Python backend with this Python's stub, and ours.

    Copies, not links: Triton refuses a backend library that lies outside its backend directory.
    """
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        raise SetupError(
            f"the pip-installed Triton has no stub for Python {_PYTHON}",
            note=f"it has: {', '.join(sorted(p.name for p in stub.parent.parent.iterdir()))}",
        )
    shutil.copytree(server / "backends" / "python", home / "python")
    shutil.copy2(stub, home / "python")
    shutil.copytree(_BACKENDS, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    _make_python_home(home / _PYTHON_HOME, environment)


def _make_python_home(home: Path, environment: Path) -> None:
    """Make a virtual environment that has the packages of another, and finds those that a model has of its own.

    The stub of Triton 2.51 does not heed PYTHONPATH with Python 3.11; what it has is of the first `python3` on PATH.
    """
    packages = home / "lib" / f"python{_PYTHON}" / "site-packages"
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    for name in ("python", "python3"):
        (home / "bin" / name).symlink_to(environment / "bin" / name)
    shutil.copy2(environment / "pyvenv.cfg", home)
    shutil.copytree(
        _BACKENDS / _OWN_PACKAGES, packages, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    (packages / "server.pth").write_text(f"{environment / packages.relative_to(home)}\n")


def _directory_of_libpython() -> Path:
    """Find the directory of the shared libpython, which the stub links.

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
            unpacked.chmod(0o755)
            for library in Path(scratch).rglob(f"{package}.so.*"):
                if not library.is_symlink():
                    library.rename(unpacked / name)  # in one step: another process may be starting
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"Triton's Python backend needs {name}, which this Python does not have",
            note=(getattr(error, "stderr", None) or str(error)).strip(),
            hint=f"install it: sudo apt-get update && sudo apt-get install {package}",
        ) from error
    return unpacked
