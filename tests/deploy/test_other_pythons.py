"""The server runs on another Python than the project, and answers with the right values."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http

from deploy.installed import interpreter
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy import tiny_models
from tests.deploy.conftest import write_model
from tests.deploy.test_layers import wants

# Answers with the minor version of its Python, by way of a package of its own that is compiled for that, and that has
# no numpy to ask for: on 3.13 none that does takes the server's.
WHICH = """
import sys
import numpy as np
import msgpack
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        assert msgpack.Packer.__module__ == "msgpack._cmsgpack", "compiled"
        value = np.array([msgpack.unpackb(msgpack.packb(sys.version_info[1]))], np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)]) for _ in requests]
"""


def here(version: str) -> str:
    """A Python of that version that is not the project's, or the test is skipped."""
    own = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"))
    for found in (shutil.which(f"python{version}"), *map(str, own)):
        if found and (python := interpreter.ask(found)) and python.version != interpreter.own().version:
            return str(python.executable)
    pytest.skip(f"needs another Python: python{version}")


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_models_run_with_another_python_and_answer_right(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 3.13 numpy is built: some minutes."""
    monkeypatch.setenv("SERVER_PYTHON", here(version))
    monkeypatch.setenv("SERVER_ENVIRONMENT", str(tmp_path / "servers"))
    workspace = Workspace(tmp_path)
    write_model(workspace.repository, "which", WHICH)
    wants(workspace.repository / "which", "msgpack==1.1.2\n")
    tiny_models.add(
        workspace.repository, "double", "(float[1] x) => (float[1] y) { y = Add(x, x) }", "max_batch_size: 0"
    )
    ports = free_ports()
    done = workspace.run_apart("deploy", "up", "--detach", *port_options(ports), "--repository", workspace.repository)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"python{version}, as SERVER_PYTHON names it" in done.stdout + done.stderr
        client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{ports[0]}")
        wait_for(client.is_server_ready, timeout_s=30)
        for model, given, name, expected in (("which", "IN", "OUT", int(version[2:])), ("double", "x", "y", 3.0)):
            tensor = tritonclient.http.InferInput(given, [1], "FP32")
            tensor.set_data_from_numpy(np.array([1.5], np.float32))
            answer = client.infer(model, [tensor]).as_numpy(name)
            assert answer is not None and answer.tolist() == [expected]
    finally:
        workspace.down()
