"""Containers that a test runs, as locked down as a cluster would, and which are gone when it ends, however it does."""

import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.triton.ports import free_ports
from tests.images import debian, podman
from tests.images.podman import ImageError

# What a pod that is called restricted has, and no root file system to write to. /tmp and /dev/shm are memory.
LOCKED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")
SHARED_MEMORY = "--shm-size=256m"
OWN_PORTS = (8000, 8001, 8002)  # of an image's server
_READY_S = 180


@dataclass(frozen=True)
class Container:
    """A container that was started."""

    identity: str
    http: str = ""
    grpc: str = ""

    def logs(self) -> str:
        """What it has said so far."""
        done = podman.call("logs", self.identity, check=False)
        return done.stdout + done.stderr

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in it."""
        return podman.call("exec", self.identity, *command, options=debian.way().options, check=False)

    def state(self, what: str) -> str:
        """A part of what podman knows of it: "State.ExitCode"."""
        return podman.call("inspect", f"--format={{{{.{what}}}}}", self.identity).stdout.strip()

    def healthy(self) -> bool:
        """Whether the image's own health check passes, asked now."""
        asked = podman.call("healthcheck", "run", self.identity, options=debian.way().options, check=False)
        return asked.returncode == 0

    def stop(self, grace_s: int = 45) -> float:
        """End it as `docker stop` does; the seconds that it took."""
        started = time.monotonic()
        podman.call("stop", f"--time={grace_s}", self.identity, options=debian.way().options, timeout_s=grace_s + 30)
        return time.monotonic() - started


@contextmanager
def started(image: str, *command: str, options: Sequence[str] = ()) -> Iterator[Container]:
    """Start a container in the background; it is removed when the block ends.

    Raises:
        ImageError: it cannot be started.
    """
    way = debian.way()
    words = ["run", "--detach", *way.run, *options, image, *command]
    identity = podman.call(*words, options=way.options).stdout.strip()
    try:
        yield Container(identity)
    finally:
        podman.call("rm", "--force", "--time=0", identity, options=way.options, check=False)


@contextmanager
def serving(
    image: str, repository: Path, *arguments: str, options: Sequence[str] = (*LOCKED, SHARED_MEMORY)
) -> Iterator[Container]:
    """Start a server's image over a model repository, mounted read-only, and wait until it is ready.

    Args:
        arguments: More for `up`.

    Raises:
        ImageError: it ended, or took too long; with what it said.
    """
    ports = free_ports()
    if debian.way().host_network:
        network, host = [], "127.0.0.1"
        listening = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    else:
        network, host, listening = (
            [f"--publish=127.0.0.1:{p}:{o}" for p, o in zip(ports, OWN_PORTS, strict=True)],
            "0.0.0.0",
            [],
        )
    mount = f"--volume={repository}:/models:ro"
    command = ("up", f"--host={host}", "--log-to-stdout", *listening, *arguments)
    with started(image, *command, options=[*options, *network, mount]) as container:
        up = Container(container.identity, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
        wait_until_ready(up)
        yield up


def wait_until_ready(container: Container) -> None:
    """Wait until its server is ready.

    Raises:
        ImageError: it ended, or took too long; with what it said.
    """
    deadline = time.monotonic() + _READY_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and container.state("State.Running") == "true":
        try:
            direct.open(f"http://{container.http}/v2/health/ready", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise ImageError(f"the container's server is not ready: {container.state('State.Status')}\n{container.logs()}")


def ended(image: str, *command: str, options: Sequence[str] = (), timeout_s: float = 180) -> tuple[int, str]:
    """Run a container to its end: its exit code, and all that it said."""
    with started(image, *command, options=options) as container:
        podman.call("wait", container.identity, timeout_s=timeout_s)
        return int(container.state("State.ExitCode")), container.logs()
