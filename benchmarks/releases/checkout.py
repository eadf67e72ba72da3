"""A checkout, of this commit or of another, whose `python -m deploy` is run as a user would, in a place of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import MeasurementError
from benchmarks.releases import child
from deploy.triton import environment
from deploy.triton.ports import free_ports


@dataclass(frozen=True)
class Up:
    """A server that was started."""

    seconds: float  # that the command took
    http: str  # host:port
    pid: int  # of tritonserver


@dataclass(frozen=True)
class Checkout:
    """A checkout with an environment, and where its server keeps what it makes.

    Attributes:
        root: It may be an older commit's: nothing of its code is imported.
        place: For artifacts and model repositories.
    """

    root: Path
    place: Path

    def deploy(self, *arguments: str | Path) -> float:
        """Run `python -m deploy ARGUMENTS…` there; return the seconds that it took.

        Raises:
            MeasurementError: it failed.
        """
        began = time.monotonic()
        self._run(*arguments)
        return time.monotonic() - began

    @contextmanager
    def serving(self, repository: Path | None = None) -> Iterator[Up]:
        """Keep a server up over a model repository, by default over a copy of the checkout's own.

        Raises:
            MeasurementError: it does not start.
        """
        http, grpc, metrics = free_ports()
        ports = ("--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics))
        served = repository or self._copy()
        try:
            seconds = self.deploy("up", "--detach", "--repository", served, "--drain", "3", *ports)
            yield Up(seconds, f"127.0.0.1:{http}", int(json.loads(self._run("status", "--json"))["pid"]))
        finally:
            with suppress(MeasurementError):  # whatever went wrong before is said
                self._run("down", finish=True)  # also if Ctrl-C is pressed once more

    def release(self, model: str | None) -> Path:
        """Return the directory of the newest version that was released there, of one model or of the first.

        Raises:
            MeasurementError: there is none.
        """
        found = (self.root / "model_repository").glob(f"{model or '*'}/*/manifest.json")
        versions = [path.parent for path in found if path.parent.name.isdecimal()]
        if not versions:
            hint = "python -m export FAMILY, in that checkout"
            raise MeasurementError(f"no version of {model or 'anything'} is published in {self.root}", hint=hint)
        return min(versions, key=lambda path: (path.parent.name, -int(path.name)))

    def commit(self) -> str:
        """Return the commit that is checked out, as far as git tells."""
        command = ["git", "-C", str(self.root), "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def _run(self, *arguments: str | Path, finish: bool = False) -> str:
        """Run `python -m deploy ARGUMENTS…` there; return what it said."""
        shared = {} if (self.root / ".venv-server").exists() else {"SERVER_ENVIRONMENT": str(environment.HOME)}
        done = child.run(
            [self._python, "-m", "deploy", *map(str, arguments)],
            self.root,
            {**shared, **os.environ, "ARTIFACTS_DIR": str(self.place / "artifacts")},
            finish=finish,
        )
        if done.returncode:
            command = f"python -m deploy {' '.join(map(str, arguments))}"
            raise MeasurementError(f"{command} failed in {self.root}", note=(done.stderr or done.stdout).strip())
        return done.stdout

    @property
    def _python(self) -> str:
        own = self.root / ".venv" / "bin" / "python"
        return str(own) if own.is_file() else sys.executable

    def _copy(self) -> Path:
        copy = self.place / "own"
        ignored = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(self.root / "model_repository", copy, ignore=ignored, dirs_exist_ok=True)
        return copy
