"""What is missing for images is named with the packages that bring it, and podman is called as this machine needs."""

import os
from pathlib import Path

import pytest

from tests.images import compose, podman


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with every program that is needed; we are root."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in (*podman.PROGRAMS, "podman-compose"):
        (tmp_path / name).touch(mode=0o755)
    return tmp_path


def test_with_every_program_images_can_be_built(programs: Path) -> None:
    assert podman.missing() is None and compose.missing() is None


def test_what_is_missing_is_named_with_its_packages(programs: Path) -> None:
    for name in ("buildah", "cc", "podman-compose"):
        (programs / name).unlink()
    assert podman.missing() == "needs buildah, cc: sudo apt-get install buildah gcc libc6-dev"
    assert compose.missing() == "needs podman-compose: sudo apt-get install podman-compose catatonit"


def test_who_is_not_root_is_told_what_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert podman.missing() == "needs root, to make a Debian with debootstrap"


COMPOSED = ["run", "--name=one", "--net", "one_default", "--network-alias", "triton", "-p", "80:80", "image", "up"]


def test_compose_keeps_its_network_where_containers_have_one() -> None:
    called = compose.translated(COMPOSED, options=["--runtime=runc"], run=["--ulimit=nofile=9:9"], build=[])
    assert called == ["--runtime=runc", "run", "--ulimit=nofile=9:9", *COMPOSED[1:]]
    assert compose.translated(["network", "create", "one_default"], options=[], run=[], build=[])


def test_compose_has_the_hosts_network_where_containers_have_no_other() -> None:
    hosts = {"options": [], "run": ["--network=host"], "build": []}
    assert compose.translated(COMPOSED, **hosts) == ["run", "--network=host", "--name=one", "image", "up"]
    assert compose.translated(["network", "create", "one_default"], **hosts) == []


def test_compose_builds_with_what_a_build_is_told_here() -> None:
    called = compose.translated(["build", "-t", "one", "."], options=[], run=[], build=["--build-arg=A=1"])
    assert called[0] == "build" and called[-4:] == ["--build-arg=A=1", "-t", "one", "."]
