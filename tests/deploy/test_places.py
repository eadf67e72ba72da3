"""A server runs from folders as people name them, and says what a machine does not let it do."""

import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from contracts import layout
from deploy.installed import plain_paths
from deploy.triton import environment
from tests.conftest import Workspace, free_ports, port_options
from tests.deploy import tiny_models
from tests.deploy.conftest import write_model

FOLDER = "Ein Ördner – 模型"
ECHO = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in given]
"""


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a blank and more in its path, the server environment in it, with a Python and an ONNX model."""
    servers = tmp_path / FOLDER / ".venv-server"
    servers.mkdir(parents=True)
    [packages] = [p for p in environment.pip_installed(print).executable.parents if p.parent == environment.HOME]
    (servers / packages.name).symlink_to(packages)
    monkeypatch.setenv("SERVER_ENVIRONMENT", str(servers))
    workspace = Workspace(tmp_path / FOLDER)
    write_model(workspace.repository, "echo", ECHO)
    tiny_models.add(
        workspace.repository, "double", "(float[1] x) => (float[1] y) { y = Add(x, x) }", "max_batch_size: 0"
    )
    return workspace


@pytest.mark.heavy
def test_blanks_and_letters_of_any_language_in_a_path_and_ipv6_do_no_harm(strange: Workspace) -> None:
    host, ports = "::1" if socket.has_dualstack_ipv6() else "localhost", free_ports()
    listening = ("--host", host, *port_options(ports))
    up = strange.run_apart("deploy", "up", "--detach", "--strict", "--repository", strange.repository, *listening)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        status = json.loads(strange.run_apart("deploy", "status", "--json").stdout)
        assert status["http"] == f"{'[::1]' if host == '::1' else '127.0.0.1'}:{ports[0]}"
        for protocol, client in ((tritonclient.http, status["http"]), (tritonclient.grpc, status["grpc"])):
            server = protocol.InferenceServerClient(client)
            for model, given, name, expected in (("echo", "IN", "OUT", 1.5), ("double", "x", "y", 3.0)):
                tensor = protocol.InferInput(given, [1], "FP32")
                tensor.set_data_from_numpy(np.array([1.5], np.float32))
                assert server.infer(model, [tensor]).as_numpy(name).tolist() == [expected]
        reloaded = strange.run_apart("deploy", "reload", "echo")
        assert reloaded.returncode == 0, reloaded.stdout + reloaded.stderr
    finally:
        strange.down()


def test_a_plain_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert plain_paths.plain(tmp_path) == tmp_path


def test_a_path_that_triton_does_not_take_is_reached_by_one_that_it_does_until_the_process_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a b" / "c\td – ü"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    program = (
        "import sys; from pathlib import Path; from deploy.installed.plain_paths import plain\n"
        "found = plain(Path(sys.argv[1])); assert found == plain(Path(sys.argv[1]))\n"
        "assert (found / 'file').exists() and oct(found.parent.stat().st_mode)[-3:] == '755'\n"
        "print(found)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, folder],
        cwd=layout.ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    link = Path(done.stdout.strip())
    assert plain_paths.is_plain(link)
    assert link.is_relative_to(tmp_path) and not link.parent.exists()


def test_too_few_open_files_are_named_before_anything_is_started(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_model(workspace.repository, "echo", ECHO)
    done = subprocess.run(
        workspace.command("deploy", "up", "--repository", workspace.repository, *port_options(free_ports())),
        cwd=layout.ROOT,
        env=workspace.environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        ),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: this process may open 100 files at once (ulimit -n), and a server needs ")
    assert "\nHint: ulimit -n 1024; in a container: --ulimit nofile=1024" in done.stderr
