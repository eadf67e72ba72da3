"""Real things, made once a run: a trained checkpoint, a published release, a Triton that serves it.

Everything is made by the commands a user types, in a workspace of its own; the datasets and the server
environment of the checkout are shared, so that they are fetched once.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies

import pytest

from contracts import layout
from deploy.triton.ports import free_ports

FAMILY, MODEL = "fashion", "fashion_classifier"

# What a developer's environment may have, and no test expects. A proxy may be needed to fetch what is fetched once.
for _name in ("ADMIN_KEY", "FORCE_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(_name, None)
# gRPC obeys no_proxy even where the caller names a proxy, so it gets neither from the environment.
os.environ.update(
    no_proxy=",".join(filter(None, (getproxies().get("no"), "127.0.0.1", "localhost"))), grpc_proxy="", no_grpc_proxy=""
)


@dataclass(frozen=True)
class Workspace:
    """A place with its own artifacts and model repository."""

    root: Path

    @property
    def repository(self) -> Path:
        return self.root / "model_repository"

    @property
    def model(self) -> Path:
        return self.repository / MODEL

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ARTIFACTS_DIR": str(self.root / "artifacts")}

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", *map(str, arguments)]

    def run(self, *arguments: str | Path, timeout_s: float = 500) -> "subprocess.CompletedProcess[str]":
        """`python -m ARGUMENTS…` in this workspace, as a user would."""
        return subprocess.run(
            self.command(*arguments),
            cwd=layout.ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def must(self, *arguments: str | Path) -> str:
        """Run it; its standard output, or the test fails with what it said."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@dataclass(frozen=True)
class RunningServer:
    """A running server, as `deploy status --json` describes it."""

    workspace: Workspace
    http: str
    grpc: str
    pid: int


def new_workspace(root: Path) -> Workspace:
    """A workspace with the model repository as git has it, but for a timeout; no version is published."""
    shutil.copytree(
        layout.model_repository(),
        root / "model_repository",
        ignore=lambda directory, names: [
            n for n in names if Path(directory).name == MODEL and n != "configs" and n != "config.pbtxt"
        ],
    )
    # A request does not fail because the machine stalls for a second.
    config = root / "model_repository" / "fashion_preprocess" / "config.pbtxt"
    config.write_text(config.read_text().replace("timeout_microseconds: 1000000 ", "timeout_microseconds: 60000000 "))
    return Workspace(root)


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def port_options(ports: Sequence[int]) -> list[str]:
    names = ("--http-port", "--grpc-port", "--metrics-port")
    return [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (Path("/dev/nvidiactl").exists() and importlib.util.find_spec("tensorrt")):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU and the extra `gpu`"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return new_workspace(tmp_path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace in which the session's checkpoint, release and server are made."""
    return new_workspace(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def checkpoint(shared: Workspace) -> Path:
    """A checkpoint of the demo network, trained on real images for some seconds (about 0.8 accuracy)."""
    shared.must(
        "training",
        "fit",
        FAMILY,
        "--preset",
        "demo",
        "--trainer.max_epochs",
        "2",
        "--trainer.limit_train_batches",
        "120",
    )
    [path] = (shared.root / "artifacts" / "checkpoints" / FAMILY).glob("*/best.ckpt")
    return path


@pytest.fixture(scope="session")
def release(shared: Workspace, checkpoint: Path) -> Path:
    """The first published version of the session's checkpoint."""
    shared.must("export", FAMILY, "--checkpoint", checkpoint, "--repository", shared.repository)
    return shared.model / "1"


@pytest.fixture
def released(release: Path, shared: Workspace, workspace: Workspace) -> Workspace:
    """A workspace of the test's own, with a copy of the release in its model repository."""
    shutil.copytree(release, workspace.model / "1")
    return workspace


@pytest.fixture(scope="session")
def server(shared: Workspace, release: Path) -> Iterator[RunningServer]:
    """A real Triton that serves the release."""
    shared.must("deploy", "up", "--detach", "--repository", shared.repository, *port_options(free_ports()))
    status = json.loads(shared.must("deploy", "status", "--json"))
    yield RunningServer(shared, status["http"], status["grpc"], status["pid"])
    shared.must("deploy", "down")


@pytest.fixture(scope="session")
def examples(shared: Workspace) -> Path:
    """A folder of 64 real test images and their labels.csv."""
    shared.must("training", "examples", FAMILY, "--count", "64")
    return shared.root / "artifacts" / "examples" / FAMILY
