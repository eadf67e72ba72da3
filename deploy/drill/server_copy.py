"""A copy of the model repository with a server of its own, for as long as a drill runs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contracts import bundle, layout, manifest, repository
from contracts.names import is_model_name
from contracts.repository import StagedVersion
from deploy.devices.chosen import Device
from deploy.errors import DrillError
from deploy.triton.ports import free_ports
from deploy.triton.settings import SERVED_VARIABLE

_PATIENCE_S = 60.0  # for what the supervisor does by itself
_LONGEST_PAUSE_S = 3.0  # of its supervisor's, so that a crash loop is soon over
Status = Mapping[str, Any]  # what `deploy status --json` prints


@dataclass(frozen=True)
class DrillCopy:
    """A copy of a model repository with a server of its own."""

    root: Path
    model: str
    http: str
    grpc: str

    @property
    def repository(self) -> Path:
        """The copy of the model repository."""
        return self.root / "model_repository"

    @property
    def directory(self) -> Path:
        """The folder in it of the model that is upgraded."""
        return self.repository / self.model

    @property
    def artifacts(self) -> Path:
        """Where its server keeps what it makes, the private copy of what it serves among it."""
        return self.root / "artifacts"

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start `python -m deploy ARGUMENTS…` as a user would, with artifacts and a repository of its own."""
        own = {
            "ARTIFACTS_DIR": str(self.artifacts),
            "MODEL_REPOSITORY": str(self.repository),
            SERVED_VARIABLE: str(self.artifacts / "served"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "deploy", *map(str, arguments)],
            cwd=layout.ROOT,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours: it ends the drill, and that its server
        )

    def deploy(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Run such a command; return its exit code, standard output and standard error."""
        with self.start(*arguments) as process:
            output, errors = process.communicate()
        return process.returncode, output, errors

    def must(self, *arguments: str | Path) -> str:
        """Run such a command; return its last line but `Next: …`.

        Raises:
            DrillError: it failed.
        """
        code, output, errors = self.deploy(*arguments)
        if code != 0:
            raise DrillError(f"python -m deploy {' '.join(map(str, arguments))} failed", note=errors.strip())
        return [line for line in output.splitlines() if not line.startswith("Next: ")][-1].strip()

    def status(self) -> Status:
        """Return what `deploy status --json` prints.

        Raises:
            DrillError: it says that no server is up.
        """
        _, output, errors = self.deploy("status", "--json")
        status: Status = json.loads(output or "{}")
        if not status.get("running"):
            raise DrillError("`deploy status` says that no server is up", note=errors.strip() or None)
        return status

    def wait_until(self, what: str, holds: Callable[[Status], bool]) -> Status:
        """Wait until `deploy status` says so; return what it prints then.

        Args:
            what: Is waited for, in words.

        Raises:
            DrillError: it does not within a minute.
        """
        until = time.monotonic() + _PATIENCE_S
        while not holds(status := self.status()):
            if time.monotonic() > until:
                known = {key: status[key] for key in ("ready", "phase", "left_out", "server_restarts")}
                raise DrillError(f"{_PATIENCE_S:.0f} s later it is not so that {what}", note=f"status: {known}")
        return status


@contextmanager
def server_over_a_copy(
    source: Path,
    model: str | None,
    say: Callable[[str], None],
    device: Device = "auto",
    *,
    ensembles: bool = False,
) -> Iterator[DrillCopy]:
    """Start a server over a copy of the repository `source`, and stop it when the block ends.

    Args:
        model: The one to upgrade; None for the first that was released.
        device: What it serves on.
        ensembles: Whether it serves each step of an ensemble as a model of its own on a CPU, too.

    Raises:
        DrillError: nothing is published, or the server does not start.
    """
    model = _released(source, model) if model else _release(source)
    with tempfile.TemporaryDirectory(prefix="drill-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)  # root's server becomes somebody else
        hidden = shutil.ignore_patterns(".*")  # parked, staged
        shutil.copytree(source, root / "model_repository", ignore=hidden)
        http, grpc, metrics = free_ports()
        copy = DrillCopy(root, model, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
        say(f"Starting a server over a copy of {layout.shown(source)}")
        try:
            ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
            up = ("up", "--detach", "--device", device, "--longest-pause", str(_LONGEST_PAUSE_S))
            copy.must(*up, *map(str, ports), *(["--ensembles"] if ensembles else []))
            yield copy
        finally:
            down = copy.start("down")
            while down.poll() is None:
                with suppress(KeyboardInterrupt, SystemExit):  # an impatient second Ctrl-C would leave it behind
                    down.wait()


@contextmanager
def next_version(model_directory: Path) -> Iterator[StagedVersion]:
    """Copy a network's newest version, to be changed in the block, and publish it as the next one. Unsigned.

    One that was published before bundles has one if the block puts it there.
    """
    newest = model_directory / str(repository.versions(model_directory)[-1])
    with repository.new_version(model_directory) as staged:
        shutil.copytree(newest, staged.directory, dirs_exist_ok=True)
        (staged.directory / manifest.SIGNATURE).unlink(missing_ok=True)
        yield staged
        release = replace(manifest.read(newest), version=staged.version, files=manifest.files_of(staged.directory))
        if not release.models and (folder := staged.directory / bundle.FOLDER).is_dir():
            others = sorted(path.name for path in folder.iterdir() if path.name != model_directory.name)
            release = replace(release, models=(model_directory.name, *others))
        manifest.write(release, staged.directory)


def _released(root: Path, model: str) -> str:
    if not (is_model_name(model) and repository.versions(root / model)):
        raise DrillError(f"no version of {model} is published in {layout.shown(root)}", hint="python -m export list")
    return model


def _release(root: Path) -> str:
    for directory in sorted(path for path in root.glob("*") if path.is_dir()):
        if any((directory / str(version) / manifest.FILE_NAME).exists() for version in repository.versions(directory)):
            return directory.name
    raise DrillError(f"nothing is published in {layout.shown(root)}", hint="python -m export FAMILY")
