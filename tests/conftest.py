"""Real things, made once a run: a trained checkpoint, a published release, a Triton that serves it.

Everything is made by the commands a user types, in a workspace of its own; the datasets and the server
environment of the checkout are shared, so that they are fetched once.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import getproxies

import pytest

from cli.installing.tool_environments import programs
from contracts import signing
from deploy.triton.ports import free_ports
from tests import heavy
from tests.attackers import PLAYS
from tests.workspace import FAMILY, MODEL, Workspace, new_workspace, processes_of, wait_for_farewells

__all__ = [  # what tests import from here
    "FAMILY",
    "MODEL",
    "RunningServer",
    "Workspace",
    "free_ports",
    "new_workspace",
    "port_options",
    "processes_of",
    "wait_for",
]

heavy.watch()

# What a developer's environment may have, and no test expects. A proxy may be needed to fetch what is fetched once.
# readline, which pytest imports, sets COLUMNS for the processes after it.
for _name in ("ADMIN_KEY", "COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TESTS"):
    os.environ.pop(_name, None)
if os.geteuid() == 0:  # what pytest makes is root's alone, and so may this Python be: no other user could serve it
    os.environ.setdefault("SERVER_USER", "root")
# gRPC obeys no_proxy even where the caller names a proxy, so it gets neither from the environment.
os.environ.update(
    no_proxy=",".join(filter(None, (getproxies().get("no"), "127.0.0.1", "localhost"))), grpc_proxy="", no_grpc_proxy=""
)


@dataclass(frozen=True)
class RunningServer:
    """A running server, as `deploy status --json` describes it."""

    workspace: Workspace
    http: str
    grpc: str
    pid: int


def wait_for(condition: Callable[[], object], timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def port_options(ports: Sequence[int]) -> list[str]:
    names = ("--http-port", "--grpc-port", "--metrics-port")
    return [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]


def pytest_configure(config: pytest.Config) -> None:
    heavy.check_groups(config)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    heavy.mark(items)
    if not (Path("/dev/nvidiactl").exists() and importlib.util.find_spec("tensorrt")):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU and the extra `gpu`"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many attacks were not tried: a suite that is green without them has shown less."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ())]
    if count := sum(PLAYS in reason for reason in reasons):
        terminalreporter.write_line(f"Not tried, as this is not root: {count} tests in which somebody {PLAYS}")


@pytest.fixture(autouse=True)
def no_more_than_it_says(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that is not marked `heavy` starts no server, trains nothing and exports nothing."""
    if request.node.get_closest_marker("heavy"):
        yield
        return
    before = heavy.count()
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if told := heavy.found(folder, before):
        pytest.fail(f"it is heavy, and not marked so: {told}\nHint: @pytest.mark.heavy, or HEAVY_FIXTURES in heavy.py")


@pytest.fixture(scope="session", autouse=True)
def every_server_is_stopped() -> Iterator[None]:
    """No test waits the four seconds that a server takes to stop; whether every one did is looked at in the end."""
    yield
    wait_for_farewells()


@pytest.fixture
def signing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """model_signing's command line in this process: half a second less for each signature and each look at one."""
    from click.testing import CliRunner
    from model_signing._cli import main

    def command(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
        done = CliRunner().invoke(main, arguments)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    monkeypatch.setattr(signing, "_command", command)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return new_workspace(tmp_path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace in which the session's checkpoint, release and server are made."""
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a folder of its own in there
        common = common.parent
    heavy.once(common / "shared.made", lambda: new_workspace(common / "shared"))
    return Workspace(common / "shared")


@pytest.fixture(scope="session")
def data_tools() -> Path:
    """The folder of the programs for data and features, in their own environment: DVC, Great Expectations, Feast."""
    return programs("data")


@pytest.fixture(scope="session")
def ray_tools() -> Path:
    """The folder of Ray's programs, in an environment of its own."""
    return programs("ray")


@pytest.fixture(scope="session")
def checkpoint(shared: Workspace) -> Path:
    """A checkpoint of the demo network, trained on real images for some seconds (about 0.8 accuracy)."""
    short = ("--preset", "demo", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "120")
    heavy.once(shared.root / "checkpoint.made", lambda: shared.must("training", "fit", FAMILY, *short))
    [path] = (shared.root / "artifacts" / "checkpoints" / FAMILY).glob("*/best.ckpt")
    return path


@pytest.fixture(scope="session")
def release(shared: Workspace, checkpoint: Path) -> Path:
    """The first published version of the session's checkpoint, served before as every user's is."""
    export = ("export", FAMILY, "--checkpoint", checkpoint, "--repository", shared.repository)
    heavy.once(shared.root / "release.made", lambda: replace(shared, serves=True).must(*export))
    return shared.model / "1"


@pytest.fixture
def released(release: Path, shared: Workspace, workspace: Workspace) -> Workspace:
    """A workspace of the test's own, with a copy of the release in its model repository."""
    shutil.copytree(release, workspace.model / "1")
    return workspace


@pytest.fixture(scope="session")
def server(shared: Workspace, release: Path) -> Iterator[RunningServer]:
    """A real Triton that serves the release."""
    # Some tests leave requests behind that Triton never answers: it shall not wait long for them in the end.
    quickly = ("--drain", "3", *port_options(free_ports()))
    shared.must("deploy", "up", "--detach", "--repository", shared.repository, *quickly)
    status = json.loads(shared.must("deploy", "status", "--json"))
    yield RunningServer(shared, status["http"], status["grpc"], status["pid"])
    shared.down()


@pytest.fixture(scope="session")
def examples(shared: Workspace) -> Path:
    """A folder of 64 real test images and their labels.csv."""
    heavy.once(shared.root / "examples.made", lambda: shared.must("training", "examples", FAMILY, "--count", "64"))
    return shared.root / "artifacts" / "examples" / FAMILY
