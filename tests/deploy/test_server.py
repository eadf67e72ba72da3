"""The server starts whole, says why it does not, and goes without a trace."""

import json
import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts import layout
from tests.conftest import RunningServer, Workspace, free_ports, port_options, processes_of, wait_for
from tests.deploy.conftest import write_model
from tests.workspace import FAMILY, MODEL
from training import families


def up(workspace: Workspace, *options: str) -> "subprocess.CompletedProcess[str]":
    return workspace.run("deploy", "up", "--detach", "--repository", workspace.repository, *options)


def refused(workspace: Workspace, *options: str) -> "subprocess.CompletedProcess[str]":
    """The same for what ends before a server is started."""
    return workspace.run_here("deploy", "up", "--repository", workspace.repository, *options)


def in_the_foreground(workspace: Workspace) -> "subprocess.Popen[str]":
    """`python -m deploy up`, as a user would; a context manager that waits for its end."""
    command = workspace.command("deploy", "up", "--repository", workspace.repository, *port_options(free_ports()))
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=layout.ROOT, env=workspace.environment, stdout=pipe, stderr=pipe, text=True)


def test_status_names_every_model_and_version(server: RunningServer) -> None:
    status = json.loads(server.workspace.must("deploy", "status", "--json"))
    assert status["running"] and status["ready"]
    assert {(m["name"], m["version"], m["state"]) for m in status["models"]} == {
        (FAMILY, 1, "READY"),
        (MODEL, 1, "READY"),
    }
    assert MODEL in server.workspace.must("deploy", "status")
    assert "Started GRPCInferenceService" in server.workspace.must("deploy", "logs", "--lines", "500")


def test_a_second_up_is_refused_and_the_first_goes_on(server: RunningServer) -> None:
    done = up(server.workspace, *port_options(free_ports()))
    assert done.returncode == 1
    assert f"error: a server is up already: process {server.pid}" in done.stderr
    assert "python -m deploy down" in done.stderr
    assert json.loads(server.workspace.must("deploy", "status", "--json"))["ready"]


@pytest.mark.parametrize("busy", range(3))
def test_a_port_in_use_is_named_with_the_option_that_changes_it(released: Workspace, busy: int) -> None:
    ports = free_ports()
    with socket.create_server(("127.0.0.1", ports[busy])):
        done = refused(released, *port_options(ports))
    assert done.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{ports[busy]}: Address already in use" in done.stderr
    assert ("--http-port", "--grpc-port", "--metrics-port")[busy] in done.stderr
    assert not processes_of(released)


def test_a_corrupt_graph_is_named_with_tritons_reason_and_nothing_stays_running(released: Workspace) -> None:
    graph = released.model / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    (released.model / "1" / "manifest.json").unlink()  # or it would be refused before Triton sees it
    done = up(released, *port_options(free_ports()))
    assert done.returncode == 1
    assert f"{MODEL} version 1:" in done.stderr
    assert "onnxruntime cannot load" in done.stderr
    assert f"{FAMILY}: a model that it needs is not ready" in done.stderr
    assert "python -m deploy logs" in done.stderr
    assert not processes_of(released)


def test_one_flipped_byte_in_a_published_file_is_refused_before_it_is_served(released: Workspace) -> None:
    graph = released.model / "1" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1  # among the weights: onnxruntime would load it
    graph.write_bytes(content)
    done = refused(released, *port_options(free_ports()))
    assert done.returncode == 1
    assert "is not what was published" in done.stderr
    assert "changed: model.onnx" in done.stderr
    assert not processes_of(released)


def test_a_repository_without_a_release_says_which_model_is_missing(workspace: Workspace) -> None:
    done = refused(workspace, *port_options(free_ports()))
    assert done.returncode == 1
    missing = ", ".join(sorted(families.spec(family).model for family in families.FAMILIES))
    assert f"error: no version of {missing} is published" in done.stderr
    assert all(f"python -m export {family}" in done.stderr for family in families.FAMILIES)
    assert not processes_of(workspace)


def test_a_repository_that_is_not_there_is_named(workspace: Workspace) -> None:
    done = workspace.run_here("deploy", "up", "--repository", workspace.root / "nope")
    assert done.returncode == 1
    assert f"there is no model repository at {workspace.root / 'nope'}" in done.stderr
    assert "Hint: name it with --repository, or MODEL_REPOSITORY; into a container it is mounted" in done.stderr


def test_a_repository_without_a_model_or_that_may_not_be_read_is_said_to_be_so(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = workspace.run_here("deploy", "up", "--repository", empty)
    assert done.returncode == 1 and f"error: there is no model in {empty}" in done.stderr
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # of root nothing can be kept
    done = workspace.run_here("deploy", "up", "--repository", empty)
    assert done.returncode == 1 and f"{empty} cannot be read by uid {os.geteuid()}\nHint: chmod" in done.stderr


def test_a_broken_older_version_is_named_and_harms_nothing(released: Workspace) -> None:
    """Triton would load all the versions that the policy asks for, or none of the model."""
    released.publish_again()
    (released.model / "1" / "model.onnx").write_bytes(b"broken")
    try:
        done = up(released, *port_options(free_ports()))
        assert done.returncode == 0, done.stderr
        assert f"warning: {MODEL} version 1 is not served beside 2: " in done.stdout
        assert f"{released.model}/1 is not what was published; Note: changed: model.onnx" in done.stdout
        models = json.loads(released.must("deploy", "status", "--json"))["models"]
        assert [m["version"] for m in models if m["name"] == MODEL and m["state"] == "READY"] == [2]
    finally:
        released.down()


def test_the_previous_version_stays_loaded(released: Workspace) -> None:
    released.publish_again()
    try:
        up(released, *port_options(free_ports())).check_returncode()
        models = json.loads(released.must("deploy", "status", "--json"))["models"]
        assert [m["version"] for m in models if m["name"] == MODEL and m["state"] == "READY"] == [1, 2]
    finally:
        released.down()


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """A server in the foreground that a signal has ended."""

    workspace: Workspace
    regions: str  # what its shared memory's names match
    exit_code: int
    stderr: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[signal.Signals, Ended]:
    """Servers that were ended at the same time, each by a signal of its own."""
    with ExitStack() as started:
        processes = {}
        for sent in SIGNALS:
            workspace = Workspace(tmp_path_factory.mktemp("foreground"))
            write_model(workspace.repository, "sleeper")
            processes[sent] = (workspace, started.enter_context(in_the_foreground(workspace)))
            started.callback(processes[sent][1].terminate)  # where something fails before it got its signal
        found = {}
        for sent, (workspace, process) in processes.items():
            assert process.stdout is not None
            wait_for(lambda stdout=process.stdout: "Ready after" in stdout.readline())  # type: ignore[misc]
            assert processes_of(workspace)
            state = json.loads((workspace.root / "artifacts" / "server" / "server.json").read_text())
            found[sent] = f"{state['shared_memory']}*"
            assert list(Path("/dev/shm").glob(found[sent]))
        for sent, (_, process) in processes.items():
            process.send_signal(sent)
            process.send_signal(sent)  # an impatient second one
        said = {sent: process.communicate(timeout=60)[1] for sent, (_, process) in processes.items()}
    return {
        sent: Ended(workspace, found[sent], process.returncode, said[sent])
        for sent, (workspace, process) in processes.items()
    }


@pytest.mark.parametrize("sent", SIGNALS)
def test_the_foreground_server_ends_with_its_command(ended: dict[signal.Signals, Ended], sent: signal.Signals) -> None:
    server = ended[sent]
    assert server.exit_code == 128 + sent
    assert "Traceback" not in server.stderr
    assert not processes_of(server.workspace)
    assert not list(Path("/dev/shm").glob(server.regions))
    assert server.workspace.run("deploy", "status").returncode == 1


@pytest.mark.heavy
def test_ctrl_c_while_the_models_load_leaves_nothing_running(sleeper: Workspace) -> None:
    with in_the_foreground(sleeper) as process:
        assert process.stdout is not None
        wait_for(lambda: "Starting tritonserver" in process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert not processes_of(sleeper)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--http-port", "99999"], "99999 is not a port"),
        (["--http-port", "8000", "--grpc-port", "8000"], "need a port each"),
        (["--host", "no.such.host.invalid"], "is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_is_refused(released: Workspace, options: list[str], message: str) -> None:
    done = refused(released, *options)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gpu_that_is_not_there_is_refused_not_ignored(released: Workspace) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    done = refused(released, "--device", "gpu", *port_options(free_ports()))
    assert done.returncode == 1
    assert "this machine has no NVIDIA GPU" in done.stderr
