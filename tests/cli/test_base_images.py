"""`make pin-images` writes what registries have, or nothing; a build takes no tag of a registry alone."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.installing.base_images import UNPINNED
from contracts import layout
from tests.cli import registry
from tests.cli.registry import Registry

SHIPPED = {
    "Dockerfile": ["PYTHON"],
    "Dockerfile.triton": ["TRITON"],
    "deploy/gateway/Dockerfile": ["PYTHON", "POSTGRES"],
    "deploy/mlflow/Dockerfile": ["POSTGRES", "PYTHON"],
}
OTHER = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry.program("skopeo")
    with registry.started(tmp_path_factory.mktemp("registry")) as up:
        yield up


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder that is all of PATH, with skopeo alone."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "skopeo").symlink_to(registry.program("skopeo"))
    return tmp_path / "bin"


def pin(folder: Path, home: Path, programs: Path, *names: str) -> "subprocess.CompletedProcess[str]":
    told = {"HOME": str(home), "PATH": str(programs), "PYTHONPATH": str(layout.ROOT)}
    command = [sys.executable, "-m", "cli.installing.base_images", *names]
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, check=False)


def dockerfile(name: str, digest: str = UNPINNED) -> str:
    return f"# ARG BASE=other:1@{UNPINNED}\nARG BASE={name}@{digest}\nARG LOCAL=localhost/own\nFROM ${{BASE}}\n"


def test_digests_of_the_registry_are_written_and_follow_the_tag_when_it_is_run_again(
    images: Registry, programs: Path, tmp_path: Path
) -> None:
    name = f"{images.address}/base/python:3.11"
    first = images.push("base/python", "3.11", "first")
    for file in ("one", "two"):
        (tmp_path / file).write_text(dockerfile(name))
    done = pin(tmp_path, images.home, programs, "one", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"one: {name}@{first}\ntwo: {name}@{first}\n"
    assert (tmp_path / "one").read_text() == dockerfile(name, first)
    assert pin(tmp_path, images.home, programs, "one").stdout == f"one: {name}@{first}, as before\n"
    second = images.push("base/python", "3.11", "second")
    assert second != first and pin(tmp_path, images.home, programs, "one").stdout == f"one: {name}@{second}\n"


def test_where_one_is_not_reached_that_is_said_and_nothing_is_changed(
    images: Registry, programs: Path, tmp_path: Path
) -> None:
    images.push("base/python", "3.12", "there")
    (tmp_path / "one").write_text(dockerfile(f"{images.address}/base/python:3.12", OTHER))
    for name, reason in (
        (f"{images.address}/base/python:none", "manifest unknown"),
        ("127.0.0.1:1/base/python:3.12", "connection refused"),
    ):
        (tmp_path / "two").write_text(dockerfile(name))
        done = pin(tmp_path, images.home, programs, "one", "two")
        assert done.returncode == 1 and not done.stdout
        assert (
            f"error: the digest of {name} could not be looked up, and nothing was changed\nNote: skopeo: "
            in done.stderr
        )
        assert reason in done.stderr and "\nHint: " in done.stderr
        assert (tmp_path / "one").read_text() == dockerfile(f"{images.address}/base/python:3.12", OTHER)


def test_what_it_needs_is_named(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(dockerfile("python:3.11"))
    done = pin(tmp_path, tmp_path, tmp_path, "one")
    assert (
        done.returncode == 1 and "Note: no skopeo or docker is here\nHint: sudo apt-get install skopeo" in done.stderr
    )


def test_what_a_program_says_that_is_no_digest_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "skopeo").write_text("#!/bin/sh\necho latest\n")
    (tmp_path / "skopeo").chmod(0o755)
    (tmp_path / "one").write_text(dockerfile("python:3.11"))
    assert pin(tmp_path, tmp_path, tmp_path, "one").returncode == 1
    assert (tmp_path / "one").read_text() == dockerfile("python:3.11")


@pytest.mark.parametrize(("file", "arguments"), SHIPPED.items())
def test_every_base_of_a_dockerfile_is_one_that_is_pinned(file: str, arguments: list[str]) -> None:
    text = (layout.ROOT / file).read_text()
    for argument in arguments:
        [default] = re.findall(rf"^ARG {argument}=(.*)$", text, re.MULTILINE)
        assert re.fullmatch(rf"\S+:[\w.-]+@(?:{UNPINNED}|sha256:[0-9a-f]{{64}})", default)
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, re.MULTILINE)
    assert {base for base, _ in stages} - {name for _, name in stages} == {f"${{{name}}}" for name in arguments}
    makefile = (layout.ROOT / "Makefile").read_text()
    assert f"DOCKERFILES := {' '.join(SHIPPED)}\n" in makefile
    assert "cli.installing.base_images $(DOCKERFILES)\n" in makefile


@pytest.mark.parametrize(("file", "argument"), [(file, each) for file, named in SHIPPED.items() for each in named])
@pytest.mark.parametrize(
    ("base", "code"),
    [
        (f"python:3.11@{OTHER}", 0),
        (f"nvcr.io/nvidia/tritonserver@{OTHER}", 0),
        ("localhost/gpu-inference-server/triton:3.12", 0),
        ("python:3.11", 1),
        ("python", 1),
        ("nvcr.io/nvidia/tritonserver:26.07-py3", 1),
        ("evil.example/localhost/triton:1", 1),
        ("evil.example/a:sha256", 1),
        ("", 1),
    ],
)
def test_a_build_refuses_a_tag_of_a_registry_alone(file: str, argument: str, base: str, code: int) -> None:
    """What every stage on a base runs first, before anything is copied or installed."""
    text = (layout.ROOT / file).read_text()
    stages = re.findall(
        rf"^FROM \$\{{{argument}\}} AS \w+\nARG {argument}\n(?:#.*\n)*RUN ((?:.*\\\n)*.*)$", text, re.MULTILINE
    )
    assert len(stages) == len(re.findall(rf"^FROM \$\{{{argument}\}} AS", text, re.MULTILINE)) > 0
    for check in stages:
        told = {**os.environ, argument: base}
        done = subprocess.run(["sh", "-c", check], env=told, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stderr == "" if code == 0 else "has no digest. Hint: make pin-images" in done.stderr
