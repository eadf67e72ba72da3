"""A real server that root starts unprivileged, and a plain user's: all that is done to a server is done to these."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from clients import Client
from contracts import golden, layout
from contracts.golden import GoldenRequest
from deploy.running import workers
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy import open_machine
from tests.deploy.conftest import write_model

pytestmark = pytest.mark.heavy

RESERVED, PLAIN = 65_524, 70_001
# Answers with what it is asked for: 0 whom it runs as, 1 with how many groups, 2 to 4 whether it can do what a
# server of root's should not: write into what is served, read the environment or the memory of who keeps the server.
CURIOUS = """
import os
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

KEEPER = parent(parent(os.getpid()))

def can(act):
    try:
        act()
    except PermissionError:
        return 0
    return 1

ANSWERS = (
    os.getuid,
    lambda: len({*os.getgroups(), os.getgid()}),
    lambda: can(Path(__file__).with_name("more").touch),
    lambda: can(Path(f"/proc/{KEEPER}/environ").read_bytes),
    lambda: can(lambda: open(f"/proc/{KEEPER}/mem", "rb")),
)

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()) for request in requests]

    def answer(self, asked):
        values = np.array([ANSWERS[int(asked[0])]()], np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)])
"""


@dataclass(frozen=True)
class Unprivileged:
    """A workspace whose commands `user` types, with a server that runs as `server`."""

    workspace: Workspace
    user: int
    server: int

    def run(self, *arguments: str | Path, within_s: float = 100) -> "subprocess.CompletedProcess[str]":
        given = {name: value for name, value in self.workspace.environment.items() if name != "SERVER_USER"}
        command = [*("setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups")]
        return subprocess.run(
            [*open_machine.inside(self.workspace.root), *command, *self.workspace.command(*arguments)],
            cwd=layout.ROOT, env=given, capture_output=True, text=True, timeout=within_s, check=False,
        )  # fmt: skip

    def must(self, *arguments: str | Path) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def record(self) -> dict[str, Any]:
        """What is written down of its server: quicker to read than `deploy status`."""
        return dict(json.loads((self.workspace.root / "artifacts" / "server" / "server.json").read_text()))

    def answers(self, *asked: int) -> list[float]:
        with Client(f"http://127.0.0.1:{self.record()['http_port']}") as client:
            return [float(client.infer("curious", {"IN": np.array([what], np.float32)})["OUT"][0]) for what in asked]


@pytest.fixture(params=[(0, RESERVED), (PLAIN, PLAIN)], ids=["root's", "a plain user's"])
def up(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unprivileged]:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-a-cloud")
    user, server = request.param
    one = Unprivileged(Workspace(tmp_path), user, server)
    write_model(one.workspace.repository, "curious", CURIOUS)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, user, user)
    tmp_path.chmod(0o755)
    ports = port_options(free_ports())
    one.must("deploy", "up", "--detach", "--repository", one.workspace.repository, "--drain", "1", *ports)
    yield one
    one.run("deploy", "down")  # as its user: root does not believe what another one has written down


def test_it_serves_and_whatever_is_done_to_it_it_stays_unprivileged(up: Unprivileged) -> None:
    shared_memory = up.record()["shared_memory"]
    assert_unprivileged(up)
    [worker] = workers.find(shared_memory)
    worker.kill()
    wait_for(lambda: up.record()["worker_restarts"] == 1, 30)
    assert_unprivileged(up)
    psutil.Process(up.record()["triton"]["pid"]).kill()
    wait_for(lambda: up.record()["server_restarts"] == 1 and up.record()["phase"] == "ready", 30)
    shutil.copytree(up.workspace.repository / "curious" / "1", up.workspace.repository / "curious" / "2")
    up.must("deploy", "reload")
    status = json.loads(up.must("deploy", "status", "--json"))
    assert status["ready"] and 2 in [model["version"] for model in status["models"]]
    assert_unprivileged(up)
    up.must("deploy", "down")
    assert not list(Path("/dev/shm").glob(f"{shared_memory}*"))
    assert not [path for path in (up.workspace.root / "artifacts" / "server" / "served").iterdir() if path.is_dir()]


def assert_unprivileged(up: Unprivileged) -> None:
    record = up.record()
    triton = psutil.Process(record["triton"]["pid"])
    for process in (triton, *triton.children(recursive=True)):
        assert set(process.uids()) == set(process.gids()) == {up.server}
    regions = list(Path("/dev/shm").glob(f"{record['shared_memory']}*"))
    assert regions
    assert all((r.stat().st_uid, stat.S_IMODE(r.stat().st_mode)) == (up.server, 0o600) for r in regions)
    assert up.answers(0, 1) == [up.server, 1]
    if up.server != up.user:  # a plain user's server is that user
        assert up.answers(2, 3, 4) == [0, 0, 0]


def test_what_its_user_cannot_read_is_named_and_root_serves_only_where_it_was_told_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    server = Unprivileged(Workspace(tmp_path), 0, RESERVED)
    write_model(server.workspace.repository, "curious", CURIOUS)
    key, certificate = tmp_path / "server.key", tmp_path / "server.pem"
    key.touch(0o600)
    certificate.touch(0o644)
    tls: list[str | Path] = ["--grpc-tls-cert", certificate, "--grpc-tls-key", key, *port_options(free_ports())]
    up = ("deploy", "up", "--repository", server.workspace.repository, *tls)
    refused = server.run(*up)
    assert refused.returncode == 1 and f"uid {RESERVED} cannot read {key}, and" in refused.stderr
    served = server.run(*up, "--user", "root")  # up to the certificate, which is none
    assert served.returncode == 1 and "warning: the server runs as root, as it was told to" in served.stdout


def request(what: float, answer: float) -> GoldenRequest:
    asked, right = (np.array([value], np.float32) for value in (what, answer))
    return GoldenRequest("curious", {"IN": asked}, {"OUT": right}, {"OUT": 0})


def test_the_serve_gate_of_root_is_unprivileged(tmp_path: Path) -> None:
    gate = Unprivileged(Workspace(tmp_path), 0, RESERVED)
    tmp_path.chmod(0o755)
    version = write_model(gate.workspace.repository, "curious", CURIOUS)
    whom, groups, may_write = (
        GoldenRequest(
            "curious", {"IN": np.array([what], np.float32)}, {"OUT": np.array([right], np.float32)}, {"OUT": 0}
        )
        for what, right in ((0, RESERVED), (1, 1), (2, 0))
    )
    golden.write([whom, groups, may_write], version)
    verdict = json.loads(gate.must("deploy", "prove", version, "--json"))
    assert [check["fault"] for check in verdict["checks"]] == [""] * 7


@pytest.mark.slow
def test_a_drill_of_roots_unprivileged_server_loses_nothing(released: Workspace) -> None:
    released.root.chmod(0o755)
    drill: list[str | Path] = ["deploy", "drill", "--repository", released.repository, "--requests", "1000", "--json"]
    for event in ("new version", "roll back", "stub killed", "server killed"):
        drill += ["--only", event]
    done = Unprivileged(released, 0, RESERVED).run(*drill, within_s=500)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert json.loads(done.stdout)["passed"]
