"""Install what a model has locked into a layer: a folder of packages that the model's processes alone look into.

One layer for each content of a requirements.lock and each Python, in `environment.layers_home()`: models that ask
for the same share it, and a running server keeps what it was started with.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cli.installing.environments import LOG, InstallError, pip_install
from contracts import layout
from contracts.files import locks
from deploy.errors import RequirementsError
from deploy.layers import lock, requirements
from deploy.layers.requirements import LOCK, TEXT, Requirements
from deploy.triton import environment
from deploy.triton.environment import Triton

_HALF_MADE = ".half-made-"


def ensure(root: Path, say: Callable[[str], None], models: Collection[str] = ()) -> None:
    """See that every model's own packages are locked and installed; says a line for each that has to be made.

    Args:
        models: Whose; none for all that ask for some.

    Raises:
        RequirementsError: by the name of the model.
    """
    for wanted in requirements.in_repository(root):
        if models and wanted.model not in models:
            continue
        current = wanted
        if not wanted.is_locked:
            say(f"Locking {layout.shown(wanted.directory / TEXT)}")
            current = lock.make(wanted)
        build(current, say)


def check_found(root: Path, triton: Triton) -> None:
    """Check that a tritonserver which is not ours finds what models have of their own.

    Raises:
        RequirementsError: it does not, and a model has something.
    """
    own = [wanted.model for wanted in requirements.in_repository(root) if wanted.layer]
    if own and not environment.finds_own_packages(triton):
        files = layout.ROOT / "deploy" / "backends" / "python" / "own_packages"
        raise RequirementsError(
            f"{', '.join(own)} has packages of its own, which the Python of {triton.executable} would not look for",
            hint=f"put the two files of {layout.shown(files)} among its packages, as Dockerfile.triton does",
        )


def build(wanted: Requirements, say: Callable[[str], None]) -> Path | None:
    """Install what is locked, unless it is; return the layer, None where there is nothing to install.

    Raises:
        RequirementsError: it is not locked, or pip failed.
    """
    if not wanted.is_locked:
        what = "is not of" if wanted.locked is not None else "is not there for"
        raise RequirementsError(
            f"{wanted.model}: {LOCK} {what} its {TEXT}", hint=f"python -m deploy environments lock {wanted.model}"
        )
    place = installed_at(wanted)
    if place is None or place.is_dir():
        return place
    home = place.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locks.locked(home / ".lock"):  # a second process waits, and finds it made
            if not place.is_dir():
                unchecked = "" if wanted.is_hashed else f"; its {LOCK} has no hashes to check them by"
                say(f"Installing the packages of {wanted.model} in {layout.shown(home)} (once){unchecked}")
                _install(wanted, place)
    except OSError as error:
        raise RequirementsError(
            f"the packages of {wanted.model} are not installed, and cannot be: {error}",
            hint="install them where that folder can be written, as when an image is built: "
            "python -m deploy environments build",
        ) from error
    return place


def installed_at(wanted: Requirements) -> Path | None:
    """Return where the layer of a model is or would be; None where it needs none."""
    return environment.layers_home() / wanted.layer if wanted.layer else None


def _install(wanted: Requirements, place: Path) -> None:
    text = wanted.directory / LOCK
    log = place.parent / f"{place.name}.{LOG}"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=_HALF_MADE, dir=place.parent) as scratch:
        target = Path(scratch, "layer")
        hashed = ["--require-hashes"] if wanted.is_hashed else []
        options: Sequence[str | Path] = ["--no-deps", *hashed, "--no-compile", "--target", target]
        try:
            pip_install(environment.models_pip(), text, options, home=target, log=log)
        except InstallError as error:
            raise RequirementsError(
                f"the packages of {wanted.model} cannot be installed", note=error.note, hint=error.hint
            ) from error
        target.mkdir(exist_ok=True)
        # The server may run as a user who cannot write here; what does not compile is never imported.
        subprocess.run(
            [environment.models_python().executable, "-m", "compileall", "-qq", "-j", "0", "-x", "/tests/", target],
            capture_output=True,
            check=False,
        )
        for path in (place.parent, target, *target.rglob("*")):  # whatever our umask
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
        target.rename(place)
