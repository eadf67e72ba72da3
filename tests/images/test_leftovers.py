"""Nothing stays behind: no container of a test that was killed, none of a build that was interrupted."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts import layout
from tests.conftest import wait_for
from tests.images import build, containers, debian, podman

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.usefixtures("images")]

BUILD = """
import pathlib, sys
from tests.images import build, debian
build.build(pathlib.Path(sys.argv[1]), "leftovers:test", context=pathlib.Path(sys.argv[1]).parent)
"""
RUN = """
import sys, time
from tests.images import containers
with containers.started(sys.argv[1], "600", options=["--entrypoint=/bin/sleep"]) as container:
    print(container.identity, flush=True)
    time.sleep(600)
"""


def python(program: str, *arguments: str | Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=layout.ROOT, stdout=subprocess.PIPE, text=True)


def at_work() -> list[str]:
    """The containers in which builds are at work on images of ours."""
    listed = subprocess.run(["buildah", "containers", "--format={{.ContainerID}}"], capture_output=True, text=True)
    return listed.stdout.split()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_build_ends_with_its_owner_and_leaves_no_container_for_long(how: signal.Signals, tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f"FROM {debian.image()}\nRUN touch /tmp/{time.time_ns()} && sleep 300\n")
    before = set(at_work())
    with python(BUILD, dockerfile) as process:
        wait_for(lambda: set(at_work()) - before)
        time.sleep(1)
        process.send_signal(how)
        process.wait(60)
    with build.alone():
        pass
    assert set(at_work()) <= before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_container_is_gone_with_its_owner_at_the_latest_when_tests_are_run_again(how: signal.Signals) -> None:
    with python(RUN, debian.image()) as process:
        assert process.stdout is not None
        container = process.stdout.readline().split()[-1]
        assert podman.call("container", "exists", container, check=False).returncode == 0
        process.send_signal(how)
        process.wait(60)
    podman.remove_abandoned()
    assert podman.call("container", "exists", container, check=False).returncode == 1


def test_a_container_whose_owner_is_at_work_is_left_alone() -> None:
    with containers.started(debian.image(), "600", options=["--entrypoint=/bin/sleep"]) as container:
        podman.remove_abandoned()
        assert podman.call("container", "exists", container.identity, check=False).returncode == 0
