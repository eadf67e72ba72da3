"""`gateway up --with-triton`, which is one program to whoever starts it: however it ends, nothing is left of it."""

import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from clients import Client, ClientError
from contracts import layout
from tests.conftest import free_ports, wait_for
from tests.deploy import open_machine
from tests.deploy.conftest import write_model
from tests.gateway import typed_models

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

SHARED_MEMORY = Path("/dev/shm")
RESERVED, PLAIN, STRANGER = 65_524, 70_001, 70_002  # whom root's Triton runs as; users of this machine


@dataclass
class Program:
    """What was started, and all that it has started since."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    grpc: str
    keepers: set[int] = field(default_factory=set)  # processes of `deploy up`

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def parts(self, word: str = "") -> list[psutil.Process]:
        """Its processes, known by the folder that they were told of; those whose command line has a word."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = process.cmdline()
                told = str(self.folder) in " ".join(command) or process.environ().get("HERE") == str(self.folder)
                if told and process.status() != psutil.STATUS_ZOMBIE:
                    if "deploy" in command:
                        self.keepers.add(process.pid)
                    found += [process] if word in " ".join(command) else []
        return found

    def memory(self) -> list[str]:
        """What its Tritons have in /dev/shm."""
        return [path.name for pid in self.keepers for path in SHARED_MEMORY.glob(f"triton_{pid}_*")]

    def is_gone(self) -> bool:
        return not self.parts() and not self.memory()

    def wait_until_it_answers(self) -> None:
        wait_for(lambda: "Answering at" in self.said or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.said


@contextmanager
def started(folder: Path, user: int | None = None, **more: str) -> Iterator[Program]:
    models = typed_models.repository(folder / "models")
    write_model(models, "sleeper")
    grpc, metrics = free_ports(2)
    command = ["env", *(f"{name}={value}" for name, value in more.items())]
    command += [sys.executable, "-m", "gateway", "up", "--port", "0", "--with-triton", "--"]
    command += ["--grpc-port", str(grpc), "--metrics-port", str(metrics), "--device", "cpu", "--drain", "1"]
    if user is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user)
        folder.chmod(0o755)
        whoever = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        command = [*open_machine.inside(folder), *whoever, *command]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment = {
        **kept, "HERE": str(folder), "MODEL_REPOSITORY": str(models), "ARTIFACTS_DIR": str(folder / "artifacts"),
        "GATEWAY_LIMITS__DRAIN_S": "1", "GATEWAY_KEYS__REQUIRED": "false",
    }  # fmt: skip
    if user is not None:
        environment.pop("SERVER_USER", None)
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=layout.ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
    program = Program(process, folder, f"127.0.0.1:{grpc}")
    try:
        yield program
    finally:
        for part in program.parts():
            with suppress(psutil.NoSuchProcess):
                part.kill()
        process.wait()


def killed(program: Program) -> None:
    program.process.kill()


def told_twice(program: Program) -> None:
    program.process.terminate()
    time.sleep(0.3)
    program.process.terminate()


def interrupted_again_and_again(program: Program) -> None:
    while program.process.poll() is None:
        program.process.send_signal(signal.SIGINT)
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("ended", [killed, told_twice, interrupted_again_and_again])
def test_nothing_is_left_however_it_is_ended(ended: Callable[[Program], None], tmp_path: Path) -> None:
    with started(tmp_path) as program:
        program.wait_until_it_answers()
        assert len(program.parts("stub")) == 5 and program.memory()
        ended(program)
        program.process.wait(60)
        wait_for(program.is_gone, 60)
        assert "Traceback" not in program.said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_start_that_was_ended(number: signal.Signals, tmp_path: Path) -> None:
    """At each stage: as the gateway begins, as `deploy` does, as Triton loads its models."""
    for stage in range(6):
        folder = tmp_path / str(stage)
        folder.mkdir()
        with started(folder) as program:
            if stage == 0:
                time.sleep(0.5)
            else:
                wait_for(lambda: program.parts("deploy" if stage == 1 else "tritonserver"), 30)  # noqa: B023
                time.sleep(0.15 * stage)
            program.process.send_signal(number)
            program.process.wait(60)
            wait_for(program.is_gone, 60)
            assert "Traceback" not in program.said, program.said


@pytest.mark.slow
def test_whatever_dies_of_it_comes_again_and_takes_nothing_with_it(tmp_path: Path) -> None:
    with started(tmp_path) as program:
        program.wait_until_it_answers()
        address = re.search(r"Answering at (\S+)", program.said)
        assert address
        for dies in (("bin/tritonserver",), ("deploy up",), ("deploy up", "bin/tritonserver")):
            before = {each.pid for each in program.parts("stub")}
            for part in [part for word in dies for part in program.parts(word)]:
                part.kill()
            wait_for(lambda: not before & {each.pid for each in program.parts("stub")}, 60)  # noqa: B023
            wait_for(lambda: len(program.parts("stub")) == 5 and answers(address[1]), 90)
        program.process.terminate()
        program.process.wait(60)
        wait_for(program.is_gone, 30)


def answers(address: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        return bool(urllib.request.urlopen(f"{address}/readyz", timeout=2).status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("user", "server"), [(0, RESERVED), (PLAIN, PLAIN)], ids=["root's", "a plain user's"])
def test_nobody_but_the_gateways_user_reaches_its_triton(user: int, server: int, tmp_path: Path) -> None:
    """Neither at its socket nor at its gRPC port, where there is no key of the gateway's: before a crash and after."""
    with started(tmp_path, user) as program:
        program.wait_until_it_answers()
        told = re.search(r"http unix:(/\S+?/http)", program.said)
        assert told
        place = Path(told[1])
        for _ in range(2):
            assert (place.parent.stat().st_uid, stat.S_IMODE(place.parent.stat().st_mode)) == (server, 0o700)
            assert place.stat().st_uid == server
            assert [connected(place, each) for each in (user, server, STRANGER)] == [0, 0, errno.EACCES]
            with Client(f"grpc://{program.grpc}") as client, pytest.raises(ClientError, match="restricted"):
                client.infer("sleeper", {"IN": np.zeros(1, np.float32)})
            [triton] = program.parts("bin/tritonserver")
            triton.kill()
            wait_for(lambda: program.said.count("Ready again") == 1, 60)


@pytest.mark.slow
def test_a_socket_that_roots_triton_cannot_come_to_is_said_with_what_helps(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as closed, started(tmp_path, 0, TMPDIR=closed) as program:
        assert program.process.wait(60) == 1
        assert f"uid {RESERVED} cannot come to the socket {closed}/" in program.said
        assert "TMPDIR=/tmp" in program.said and "Traceback" not in program.said


def connected(place: Path, user: int) -> int:
    """Connect as another user; 0, or the number of the error."""
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        os._exit(socket.socket(socket.AF_UNIX).connect_ex(str(place)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
