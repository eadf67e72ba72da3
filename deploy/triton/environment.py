"""Where `tritonserver` comes from: the container's own, or the pip-installed one in an environment of its own.

The pip-installed server (nvidia-pytriton) brings the real server and its Python backend. Its stubs need
numpy<2 and libpython, so it lives in `.venv-server`, never mixed with the project's environment. Its Python may be
another one than the project's: deploy/installed.

  python3 -m deploy.triton.environment     exits with 1 and says why if it cannot be made here; needs no package

In there, what is made from other lock files or backends is another directory: a running server keeps the
files that it was started with, however the checkout changes.
  .venv-server/packages-<digest>/   a virtual environment, from the lock files
  .venv-server/backends-<digest>/   a backend directory, from the above and deploy/backends
  .venv-server/layers/              packages that models have of their own: see deploy/layers
"""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cli.installing.environments import LOG, InstallError, pip_install
from cli.run import run_command_line
from contracts import layout
from contracts.engines import library
from contracts.files import locks
from deploy.devices import chosen
from deploy.errors import DeployError, SetupError
from deploy.installed import backends, choice, interpreter, libpython
from deploy.installed.choice import Choice
from deploy.installed.interpreter import Interpreter
from deploy.installed.plain_paths import plain

HOME = Path(os.environ.get("SERVER_ENVIRONMENT", layout.ROOT / ".venv-server")).resolve()

_DEPLOY = layout.ROOT / "deploy"
_LOCK_FILE = _DEPLOY / "server.lock"
_GPU_LOCK_FILE = _DEPLOY / "server-gpu.lock"
_BACKENDS = _DEPLOY / "backends"
_LIBPYTHON = "libpython"  # in HOME: what was unpacked of a package
_CONTAINER = Path("/opt/tritonserver/bin/tritonserver")
_GPU_SIZE = "TensorRT is several GB"
_STAMP = "made"  # a file in each finished directory, touched whenever that is used
_KEPT_S = 3600  # longer than it can take from asking for an environment to a server that runs from it


@dataclass(frozen=True)
class Triton:
    """A tritonserver that can be started."""

    executable: Path
    arguments: tuple[str, ...] = ()  # that this installation always needs
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of ours
    native: bool = True  # has the native backends, TensorRT's among them


def main() -> int:
    """See that a server can be had here, before anything is installed."""
    if _native() is None:
        chosen_python()
    return 0


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
    command = ["python3", "-c", f"import {backends.OWN_PACKAGES.name}"]
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
    if (native := _native()) is not None:
        return Triton(native, environment={"MODEL_LAYERS": str(layers_home())})
    return pip_installed(say, gpu=gpu)


def models_python() -> Interpreter:
    """Return the Python that models run with: ours where the server is an image's, as that is the image's, too.

    Raises:
        SetupError: the pip-installed server can run on none that is here.
    """
    return interpreter.own() if _native() is not None else chosen_python().python


def models_pip() -> list[str | Path]:
    """Return how to call the pip that chooses and installs what models have of their own.

    Raises:
        SetupError: as `models_python`.
    """
    pip: list[str | Path] = [sys.executable, "-m", "pip"]
    python = models_python()
    return pip if python == interpreter.own() else [*pip, "--python", python.executable]


def chosen_python() -> Choice:
    """Return the Python of the pip-installed server's models, and why it is not the project's own.

    Raises:
        SetupError: none that is here will do, with what to install.
    """
    return _choice(HOME, os.environ.get(choice.VARIABLE))


def pip_installed(say: Callable[[str], None], *, gpu: bool = False) -> Triton:
    """Return the pip-installed tritonserver, in `.venv-server`.

    Raises:
        SetupError: the environment could not be made, or `gpu` is asked of a machine without one.
    """
    if gpu and not chosen.gpus()[0]:
        raise SetupError("this machine has no NVIDIA GPU, or no driver for it", hint="serve on the CPU: --device cpu")
    found = chosen_python()
    python, sources = found.python, _sources(gpu)
    with _alone():
        environment = _made("packages", sources, python.build, lambda home: _install(home, gpu, found, say))
        packages = environment / backends.site_packages(python)
        server = packages / "pytriton" / "tritonserver"
        libraries = libpython.directory(python, HOME / _LIBPYTHON) or libpython.unpack(python, HOME / _LIBPYTHON)
        directory = _made(
            "backends",
            sorted(_BACKENDS.rglob("*.py")),
            environment.name,
            lambda home: backends.assemble(home, _BACKENDS, server, environment, python, libraries),
        )
        if not _is_read_only():
            _remove_unused({environment, directory})
    reached = plain(HOME) / directory.name
    library_path = [directory / backends.LIBPYTHON, packages / "nvidia_pytriton.libs", libraries]
    return Triton(
        executable=server / "bin" / "tritonserver",
        arguments=(
            f"--backend-directory={reached}",
            f"--cache-directory={plain(server) / 'caches'}",
        ),
        environment={
            "LD_LIBRARY_PATH": os.pathsep.join(str(path) for path in library_path if path.is_dir()),
            "PYTHONPATH": str(packages),
            "MODEL_LAYERS": str(layers_home()),
            # Models run with the standard library and the packages of the first `python3` on PATH.
            "PATH": f"{reached / backends.PYTHON_HOME / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
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


def _native() -> Path | None:
    on_path = shutil.which("tritonserver")
    found = (path for path in (_CONTAINER, Path(on_path) if on_path else None) if path and path.exists())
    return next(found, None)


@functools.cache
def _choice(home: Path, _: str | None) -> Choice:
    def is_made(python: Interpreter) -> bool:
        return (_home_of("packages", _sources(gpu=False), python.build) / _STAMP).exists()

    return choice.choose(home / _LIBPYTHON, is_made)


def _sources(gpu: bool) -> list[Path]:
    return [_LOCK_FILE, _GPU_LOCK_FILE] if gpu else [_LOCK_FILE]


def _made(what: str, sources: Iterable[Path], also: str, make: Callable[[Path], None]) -> Path:
    """Return the directory in HOME that `make` fills, one for each content of `sources`; a half-made one is redone."""
    home = _home_of(what, sources, also)
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


def _home_of(what: str, sources: Iterable[Path], also: str) -> Path:
    digest = hashlib.sha256(also.encode())
    for path in sources:
        digest.update(f"\0{path.parent.name}/{path.name}\0".encode() + path.read_bytes())
    return HOME / f"{what}-{digest.hexdigest()[:12]}"


def _remove_unused(needed: Collection[Path]) -> None:
    """Remove what was made from other sources, unless a process runs from it or may be about to."""
    others = [path for what in ("packages", "backends") for path in HOME.glob(f"{what}-*") if path not in needed]
    old = [path for path in others if not _used_lately(path / _STAMP)]
    if old:
        import psutil  # here: what cannot be made is said before anything is installed

        running = "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
        for path in old:
            if path.name not in running:
                shutil.rmtree(path, ignore_errors=True)


def _used_lately(stamp: Path) -> bool:
    return stamp.exists() and time.time() - stamp.stat().st_mtime < _KEPT_S


def _install(home: Path, gpu: bool, found: Choice, say: Callable[[str], None]) -> None:
    """Make a virtual environment with what the lock files name."""
    how_long = "numpy is built, which takes some minutes" if found.builds_numpy else "a minute or two"
    instead = f" with {found.python.executable}, as {found.instead}" if found.instead else ""
    say(f"Making the server environment in {layout.shown(HOME)} (once; {_GPU_SIZE if gpu else how_long}){instead}")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    log = HOME / LOG
    log.unlink(missing_ok=True)
    try:
        new = [str(found.python.executable), "-m", "venv", "--without-pip", str(home)]
        subprocess.run(new, check=True, capture_output=True, text=True)
        for lock in (_LOCK_FILE, _GPU_LOCK_FILE) if gpu else (_LOCK_FILE,):
            pip_install(pip, lock, ["--no-deps", "--require-hashes"], home=home, log=log)
    except (InstallError, OSError, subprocess.CalledProcessError) as error:
        note, hint = (error.note, error.hint) if isinstance(error, InstallError) else (str(error), None)
        failed = f"could not make the server environment in {layout.shown(HOME)}"
        raise SetupError(failed, note=getattr(error, "stderr", None) or note, hint=hint) from error


if __name__ == "__main__":
    run_command_line(main, DeployError)
