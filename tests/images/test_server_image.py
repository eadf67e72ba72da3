"""Dockerfile.triton's server is built statement by statement, and serves: as its user, with nothing to write to."""

from pathlib import Path

import pytest

from tests.conftest import FAMILY
from tests.images import asking
from tests.images.build import Image
from tests.images.containers import Container, serving

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def container(server_image: Image, repository: Path):
    with serving(server_image.identity, repository) as up:
        yield up


def test_golden_requests_are_answered(container: Container, repository: Path) -> None:
    right, sent = asking.right_answers(container, repository, FAMILY)
    assert right == sent >= 32
