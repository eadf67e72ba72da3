"""The slim image serves on a laptop or in CI, without a GPU, NVIDIA's image, or anything to write to."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FAMILY
from tests.images import asking
from tests.images.build import Image
from tests.images.containers import Container, serving, started

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

MOST_MB = 1100  # twice numpy, for the server and for `deploy`, is a fifth of it


@pytest.fixture(scope="module")
def container(cpu_image: Image, repository: Path) -> Iterator[Container]:
    with serving(cpu_image.identity, repository, "--device=cpu") as up:
        yield up


def test_it_is_not_large(cpu_image: Image) -> None:
    assert cpu_image.size_bytes < MOST_MB * 1e6


def test_it_answers_rightly_and_is_healthy(container: Container, repository: Path) -> None:
    right, sent = asking.right_answers(container, repository, FAMILY)
    assert right == sent > 20
    assert container.healthy()


def test_it_serves_as_it_stands_in_the_image_and_makes_nothing_first(container: Container) -> None:
    said = container.logs()
    assert re.search(r"Serving configs/cpu\.pbtxt on the CPU: --device cpu", said)
    assert "Making the server environment" not in said


def test_it_runs_unprivileged_and_its_own_command_serves_on_the_cpu(container: Container, cpu_image: Image) -> None:
    assert container.execute("id", "--user").stdout.strip() == "1000"
    with started(cpu_image.identity) as without_models:
        assert without_models.state("Config.Cmd") == "[up --host=0.0.0.0 --log-to-stdout --device=cpu]"


def test_a_stop_ends_it_before_its_grace_is_over(cpu_image: Image, repository: Path) -> None:
    with serving(cpu_image.identity, repository) as up:
        assert up.stop(grace_s=40) < 20
        assert up.state("State.ExitCode") == "143"
