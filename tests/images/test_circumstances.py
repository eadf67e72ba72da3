"""A server's image where something is not as it should be: it serves all the same, or says what is missing."""

import os
import pty
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import FAMILY, free_ports, port_options
from tests.images import asking, debian
from tests.images.build import Image
from tests.images.containers import LOCKED, SHARED_MEMORY, ended, serving

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

# As docker has it: podman's own --read-only makes /tmp and /dev/shm as they should be.
BARE = (*LOCKED, "--read-only-tmpfs=false")
TMP = "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=256m"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([*LOCKED, SHARED_MEMORY, "--user=1234567:0"], id="a uid that nobody has, as OpenShift gives"),
        pytest.param([*LOCKED, SHARED_MEMORY, "--user=1001:1001"], id="a uid that is not the image's"),
        pytest.param([*BARE, SHARED_MEMORY, TMP], id="a /tmp from which nothing can be run, as docker's"),
        pytest.param([SHARED_MEMORY], id="a file system that can be written"),
        pytest.param([*LOCKED, SHARED_MEMORY, "--env=http_proxy=http://127.0.0.1:1"], id="a proxy for all containers"),
    ],
)
def test_it_serves(options: list[str], server_image: Image, repository: Path) -> None:
    with serving(server_image.identity, repository, options=options) as container:
        right, sent = asking.right_answers(container, repository, FAMILY)
        assert right == sent > 20 and container.healthy()


def test_it_serves_a_repository_of_root(server_image: Image, repository: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "models"
    shutil.copytree(repository, mounted)
    tmp_path.chmod(0o755)
    assert mounted.stat().st_uid == 0
    with serving(server_image.identity, mounted) as container:
        assert asking.right_answers(container, repository, FAMILY)[0] > 20


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param([*LOCKED], "error: there is no model repository at /models\nHint: ", id="nothing is mounted"),
        pytest.param(
            [*LOCKED, "--volume={private}:/models:ro"],
            "error: the model repository /models cannot be read by uid 1000\nHint: chmod",
            id="what is mounted is another user's alone",
        ),
        pytest.param(
            [*LOCKED, "--volume={models}:/models:ro", "--shm-size=512k"],
            "use '--shm-size' flag",
            id="too little shared memory",
        ),
        pytest.param(
            [*BARE, TMP, "--volume={models}:/models:ro", "--mount=type=tmpfs,destination=/dev/shm,ro"],
            "shared memory. Error: Read-only file system",
            id="a /dev/shm that cannot be written",
        ),
        pytest.param(
            [*BARE, "--volume={models}:/models:ro"],
            "error: Read-only file system: /tmp/artifacts",
            id="no /tmp that can be written",
        ),
        pytest.param(
            ["--user=0:0", "--volume={models}:/models:ro"],
            "Hint: root needs SYS_PTRACE for that, which containers do not have",
            id="as root",
        ),
    ],
)
def test_it_says_what_is_missing(
    options: list[str], said: str, server_image: Image, repository: Path, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    mounted = [option.format(private=private, models=repository) for option in options]
    listening = port_options(free_ports())
    code, heard = ended(server_image.identity, "up", "--log-to-stdout", *listening, options=mounted)
    assert code == 1 and said in heard, heard


def test_a_port_that_is_taken_is_named(server_image: Image, repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        hosts = [] if debian.way().host_network else ["--network=host"]
        options = [*LOCKED, *hosts, f"--volume={repository}:/models:ro"]
        code, said = ended(server_image.identity, "up", f"--http-port={port}", options=options)
    assert code == 1 and f"error: cannot listen on 127.0.0.1:{port}: Address already in use" in said


def test_ctrl_c_in_a_terminal_ends_it(server_image: Image, repository: Path) -> None:
    way = debian.way()
    words = ["podman", *way.options, "run", "--rm", "--interactive", "--tty", *way.run]
    words += [*LOCKED, SHARED_MEMORY, f"--volume={repository}:/models:ro", server_image.identity]
    words += ["up", *port_options(free_ports())]
    ours, its = pty.openpty()
    with subprocess.Popen(words, stdin=its, stdout=its, stderr=its, start_new_session=True) as process:
        os.close(its)
        assert "Ready after" in heard(ours, until="Ready after")
        os.write(ours, b"\x03")
        assert "Stopped." in heard(ours, until="Stopped.")
        assert process.wait(30) == 130
    os.close(ours)


def heard(terminal: int, until: str, timeout_s: float = 60) -> str:
    said, deadline = "", time.monotonic() + timeout_s
    while until not in said and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            said += os.read(terminal, 4096).decode(errors="replace")
    return said
