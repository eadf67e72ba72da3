"""More and more versions of one model in a repository: what starting, looking and verifying take."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import MeasurementError
from benchmarks.releases.checkout import Checkout
from contracts import bundle, layout, manifest


@dataclass(frozen=True)
class Versions:
    """What so many versions gave, in seconds of whole commands."""

    size: int
    up_s: float
    status_s: float
    verify_s: float  # of all of them
    verify_newest_s: float


def measure(version: Path, place: Path, sizes: Sequence[int]) -> Iterator[Versions]:
    """Time the commands over a repository with so many versions of one release.

    Args:
        version: The directory of a release, which is linked to again and again.

    Raises:
        MeasurementError: a command fails.
    """
    checkout = Checkout(layout.ROOT, place / "server")
    for size in sizes:
        repository = place / "model_repository"
        shutil.rmtree(repository, ignore_errors=True)
        write(version, repository, size)
        with checkout.serving(repository) as up:
            status_s = checkout.deploy("status", "--json")
        newest = _verify(repository, version.parent.name, str(size))
        yield Versions(size, up.seconds, status_s, _verify(repository), newest)


def write(version: Path, repository: Path, count: int) -> None:
    """Write so many versions of a sealed release into the new folder `repository`, as hard links where that can be.

    Raises:
        MeasurementError: it is not sealed: its models lie elsewhere.
    """
    network, bundled = version.parent.name, version / bundle.FOLDER
    if not bundled.is_dir():
        raise MeasurementError(f"{layout.shown(version)} is no sealed release", hint="export it again")
    shutil.copytree(bundled, repository)
    said = json.loads((version / manifest.FILE_NAME).read_text())
    for number in range(1, count + 1):
        target = repository / network / str(number)
        shutil.copytree(version, target, copy_function=_link)
        for seal in (manifest.FILE_NAME, manifest.SIGNATURE):
            (target / seal).unlink(missing_ok=True)
        (target / manifest.FILE_NAME).write_text(json.dumps({**said, "version": number}))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _verify(repository: Path, *which: str) -> float:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "export", "verify", *which, "--repository", str(repository)],
        cwd=layout.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MeasurementError("python -m export verify failed", note=(done.stderr or done.stdout).strip()[-1000:])
    return time.monotonic() - began
