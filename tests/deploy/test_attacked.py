"""A server that asks for signatures, beside somebody who writes into its model repository all the time."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from cryptography.hazmat.primitives.asymmetric import ec
from tritonclient.utils import InferenceServerException

from contracts import manifest, repository, signing
from contracts.signing import Signer
from deploy.running import workers
from tests import attackers
from tests.attackers import replacing
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.contracts.signers import key_pair
from tests.deploy.conftest import write_model
from tests.small_releases import release_of

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("signing_here")]

CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        value = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value * {factor})])
"""
PLANTED = CODE.format(factor=666)


def publish(root: Path, name: str, factor: int, signer: Path) -> None:
    """The next release of a network, which multiplies."""
    with repository.new_version(root / name) as staged:
        sealed = staged.directory / "release" / name
        sealed.mkdir(parents=True)
        shutil.copyfile(root / name / "config.pbtxt", sealed / "config.pbtxt")
        (staged.directory / "model.py").write_text(CODE.format(factor=factor))
        release = release_of((name,), model=name, version=staged.version, files=manifest.files_of(staged.directory))
        manifest.write(release, staged.directory)
        signing.sign(staged.directory, Signer(signer))


class Attacker:
    """What he does in the model repository; the folder that he is in."""

    def __init__(self, signed: bytes) -> None:
        self.moves = [
            *(replacing("net/2/model.py", PLANTED.encode()), self.pause, replacing("net/2/model.py", signed)),
            *(self.bytecode, self.libraries, self.another_number, self.another_model, self.configuration),
        ]

    def pause(self) -> None:
        time.sleep(0.02)

    def bytecode(self) -> None:
        for place in ("net/2/__pycache__", "net/1/__pycache__", "other/1/__pycache__"):
            Path(place).mkdir(exist_ok=True)
            Path(place, "model.cpython-311.pyc").write_bytes(b"planted")

    def libraries(self) -> None:
        Path("net/libplanted.so").write_bytes(b"planted")
        Path("net/2/release/net/libplanted.so").write_bytes(b"planted")
        Path("net/2/release/net/libplanted.so").unlink()

    def another_number(self) -> None:
        """Version 1 again, as version 7."""
        shutil.copytree("net/1", "net/.7", dirs_exist_ok=True)
        Path("net/.7").rename("net/7")
        time.sleep(0.01)
        shutil.rmtree("net/7")

    def another_model(self) -> None:
        for name in ("new", "also"):
            Path(name, "1").mkdir(parents=True, exist_ok=True)
            Path(name, "1", "model.py").write_text(PLANTED)
            config = Path("net/2/release/net/config.pbtxt").read_text().replace("net", name)
            Path(name, "config.pbtxt").write_text(config)

    def configuration(self) -> None:
        replacing("other/config.pbtxt", b"planted")()


def look(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads(workspace.run("deploy", "status", "--json").stdout))


def ask(address: str, model: str) -> float | None:
    """What it makes of 1; None while a worker is being replaced."""
    with triton.InferenceServerClient(address, network_timeout=10) as client:
        tensor = triton.InferInput("IN", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
        try:
            return float(client.infer(model, [tensor]).as_numpy("OUT")[0, 0])
        except InferenceServerException:
            return None


def both(address: str) -> tuple[float | None, float | None]:
    return ask(address, "net"), ask(address, "other")


def test_only_what_was_signed_ever_answers(tmp_path: Path) -> None:
    """While it is reloaded, its workers are killed, and a neighbour is promoted and rolled back."""
    workspace = Workspace(tmp_path)
    private, public = key_pair(tmp_path, "ours", ec.generate_private_key(ec.SECP256R1()))
    for name, factors in {"net": (11, 12), "other": (21, 22)}.items():
        shutil.rmtree(write_model(workspace.repository, name, max_batch_size=4))
        for factor in factors:
            publish(workspace.repository, name, factor, private)
    attacker = Attacker((workspace.repository / "net/2/model.py").read_bytes())
    trusted: tuple[str | Path, ...] = (
        "--require-signature",
        "--verify-key",
        public,
        "--drain",
        "3",
        *port_options(free_ports()),
    )
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *trusted)
    try:
        http = json.loads(workspace.must("deploy", "status", "--json"))["http"]
        assert both(http) == (12, 22)

        def is_seen() -> bool:
            done = workspace.run("deploy", "reload")
            assert "Traceback" not in done.stderr, done.stderr
            assert both(http) in {(12, 22), (12, 21)}
            return done.returncode != 0

        with attackers.attacking(workspace.repository, *attacker.moves):
            for command in (("rollback", "other"), ("promote", "other", "2")):
                done = workspace.run("deploy", *command)
                assert "Traceback" not in done.stderr, done.stderr
                assert both(http) in {(12, 22), (12, 21)}
            wait_for(is_seen)  # half of the time the planted file is there
            shared_memory = json.loads((tmp_path / "artifacts/server/server.json").read_text())["shared_memory"]
            for worker in workers.find(shared_memory):
                worker.kill()
            wait_for(lambda: look(workspace)["worker_restarts"] >= 2)
            wait_for(lambda: None not in both(http))
            assert both(http) in {(12, 22), (12, 21)}
        found = look(workspace)
        ready = {version["name"] for version in found["models"] if version["state"] == "READY"}
        assert ready == {"net", "other"} and not found["unsealed"]
    finally:
        workspace.down()
