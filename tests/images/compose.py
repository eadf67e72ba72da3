"""docker compose, as far as podman-compose goes, with a podman that works as this machine lets it.

podman-compose is told of one program: this module, which puts in what a build or a container needs here, and calls
podman. Where containers have the host's network there is no other, and no port is published.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from contracts import layout
from tests.images import build, debian, podman
from tests.tracked import tracked

PACKAGES = "podman-compose catatonit"
_HOW = "IMAGES_COMPOSE"  # the environment variable by which this module knows how it is run
_BRIDGED = {"--net", "--network", "--network-alias", "-p"}  # options of `podman run`, each with a value


def missing() -> str | None:
    """Say what is not here, with what would help."""
    return None if shutil.which("podman-compose") else f"needs podman-compose: sudo apt-get install {PACKAGES}"


@contextmanager
def project(
    *files: Path, scratch: Path, build_options: Sequence[str], environment: Mapping[str, str]
) -> Iterator["Project"]:
    """A project of compose files; its containers, network and volumes are gone when the block ends.

    Args:
        scratch: A folder for what podman-compose is given.
        build_options: More for `podman build`.
        environment: What the files ask of it.
    """
    way = debian.way()
    program = scratch / "podman"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.images.compose "$@"\n')
    program.chmod(0o755)
    name = f"images-{os.getpid()}"
    how = {"options": way.options, "run": way.run, "build": [*build_options]}
    told = {**os.environ, **environment, _HOW: json.dumps(how), "PYTHONPATH": str(layout.ROOT)}
    words = ["podman-compose", f"--podman-path={program}", "-p", name, *(f"-f={file}" for file in files)]
    made = Project(name, words, told)
    try:
        yield made
    finally:
        made.run("down", "--volumes")
        for container in podman.call("ps", "-aq", f"--filter=label=io.podman.compose.project={name}").stdout.split():
            podman.call("rm", "--force", "--time=0", container, options=way.options, check=False)


def checkout(root: Path, models: Path, uid: int) -> Path:
    """Copy what git has to `root`, with the models of a repository among its own, as a checkout of another user's."""
    for path in tracked(others=True):
        copy = root / path.relative_to(layout.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    shutil.copytree(models, root / "model_repository", dirs_exist_ok=True)
    for path in (root, *root.rglob("*")):
        shutil.chown(path, uid, uid)
    root.parent.chmod(0o755)
    return root


class Project:
    """Compose files and the name under which they are run."""

    def __init__(self, name: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name, self._words, self._environment = name, words, environment

    def run(self, *arguments: str, timeout_s: float = 540) -> "subprocess.CompletedProcess[str]":
        """`docker compose ARGUMENTS`."""
        # Whoever else builds here takes an unfinished build for one that was left behind.
        with build.alone() if "--build" in arguments else nullcontext():
            return subprocess.run(
                [*self._words, *arguments],
                env=dict(self._environment),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                stdin=subprocess.DEVNULL,
            )

    def container(self, service: str) -> str:
        """The name of the container of a service."""
        return f"{self.name}_{service}_1"


def translated(words: Sequence[str], *, options: Sequence[str], run: Sequence[str], build: Sequence[str]) -> list[str]:
    """What podman is called with in place of `words`; nothing where there is nothing to do."""
    command, rest = words[0], list(words[1:])
    host_network = "--network=host" in run
    if host_network and command == "network":
        return []
    if command == "build":
        rest = ["--isolation=chroot", "--network=host", "--format=docker", *build, *rest]
    if command in ("run", "create"):
        rest = [*run, *(_without_network(rest) if host_network else rest)]
    return [*options, command, *rest]


def _without_network(words: Sequence[str]) -> list[str]:
    kept, value = [], False
    for word in words:
        if not value and word not in _BRIDGED:
            kept.append(word)
        value = not value and word in _BRIDGED
    return kept


if __name__ == "__main__":
    called = translated(sys.argv[1:], **json.loads(os.environ[_HOW]))
    if called:
        os.execvp("podman", ["podman", *called])  # in its place
