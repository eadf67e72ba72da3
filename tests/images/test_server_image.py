"""Dockerfile.triton's server is built statement by statement, and serves: as its user, with nothing to write to."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from tests.conftest import FAMILY
from tests.deploy.conftest import write_model
from tests.images import asking, pip_settings
from tests.images.build import Image
from tests.images.containers import LOCKED, Container, serving, started

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def container(server_image: Image, repository: Path) -> Iterator[Container]:
    with serving(server_image.identity, repository) as up:
        yield up


def test_a_release_that_another_user_copied_here_is_served_and_answers_rightly(
    container: Container, repository: Path
) -> None:
    right, sent = asking.right_answers(container, repository, FAMILY)
    assert right == sent > 20


def test_it_runs_as_the_user_of_the_image_and_can_change_nothing(container: Container) -> None:
    assert [container.execute("id", which).stdout.strip() for which in ("--user", "--group")] == ["1000", "1000"]
    status = dict(line.split(":\t") for line in container.execute("cat", "/proc/1/status").stdout.splitlines())
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"
    for place in ("/app/new", "/opt/new", "/models/new"):
        refused = container.execute("touch", place)
        assert refused.returncode != 0 and "Read-only file system" in refused.stderr


def test_the_commands_of_deploy_are_at_hand_in_it(container: Container) -> None:
    said = container.execute("/opt/deploy/bin/python", "-m", "deploy", "status")
    assert said.returncode == 0 and f"✓ {FAMILY}" in said.stdout, said.stdout + said.stderr


def test_its_health_check_asks_the_server_at_the_ports_that_it_was_given(
    container: Container, server_image: Image
) -> None:
    assert container.healthy()
    idle = [*LOCKED, "--entrypoint=/bin/sleep"]
    with started(server_image.identity, "60", options=idle) as without_a_server:
        assert not without_a_server.healthy()


def test_nothing_that_the_build_was_told_of_this_machine_stays_in_it(container: Container) -> None:
    settings = pip_settings.of_this_machine()
    conf, environment = container.execute("cat", str(pip_settings.PLACE)).stdout, container.execute("env").stdout
    assert conf != settings.text
    for folder in (path for path in settings.mounts if path.is_dir()):
        assert str(folder) not in conf + environment
        assert container.execute("ls", "-A", str(folder)).stdout == "", folder


def test_a_stop_lets_a_request_finish_that_was_accepted(server_image: Image, tmp_path: Path) -> None:
    write_model(tmp_path / "models", "sleeper")
    tmp_path.chmod(0o755)
    asked = InferInput("IN", [1], "FP32").set_data_from_numpy(np.array([4.0], np.float32))
    answers = []
    with serving(server_image.identity, tmp_path / "models") as container:

        def ask() -> None:
            with InferenceServerClient(container.http, network_timeout=30) as client:
                answers.append(client.infer("sleeper", [asked]).as_numpy("OUT").tolist())

        request = threading.Thread(target=ask)
        request.start()
        time.sleep(1)
        took_s = container.stop(grace_s=40)
        request.join(10)
        assert answers == [[8.0]]
        assert 2.5 < took_s < 20 and container.state("State.ExitCode") == "143"
