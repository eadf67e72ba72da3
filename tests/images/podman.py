"""podman and buildah, as far as they work on this machine: found, tried, and called.

Where podman's defaults start no container, a sandbox among them, another runtime, the host's network and limits of our
own are tried in turn, and what it took is said.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PROGRAMS = ("buildah", "podman", "debootstrap")
# On every image of ours and, by inheritance, on whatever is built on one; on every container, with its owner's process.
LABEL = "gpu-inference-server.tests"
NAMES = "localhost/gpu-inference-server"  # what the names of our images begin with

_LIMITS = '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=5000:5000"]\n'


class ImageError(Exception):
    """An image could not be built, or a container not be started; with what was said at last."""


@dataclass(frozen=True)
class Way:
    """How containers are run here."""

    said: str = "podman's defaults"
    options: tuple[str, ...] = ()  # of podman itself
    host_network: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def network(self) -> list[str]:
        """The option of `podman run` for the network."""
        return ["--network=host"] if self.host_network else []


def say(line: str) -> None:
    """Say what is being done, or was found; stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def missing() -> str | None:
    """Say why no image can be built here, with what would help; None where one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"needs {', '.join(absent)}: sudo apt-get install {' '.join(absent)}"
    if os.geteuid() != 0:
        return "needs root, to make a Debian with debootstrap"
    return None


def call(
    *words: str | Path, way: Way | None = None, check: bool = True, timeout_s: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run podman; an ImageError says how it failed, unless that may be."""
    way = way or Way()
    command = ["podman", *way.options, *map(str, words)]
    done = subprocess.run(
        command,
        env={**os.environ, **way.environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode:
        raise ImageError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@cache
def way(image: str) -> Way:
    """Find how a container can be run here, by running /bin/true of `image`; says so where it takes anything.

    Raises:
        ImageError: it cannot.
    """
    reasons: list[str] = []
    for tried in _ways():
        done = call("run", "--rm", *tried.network, "--entrypoint=/bin/true", image, way=tried, check=False)
        if done.returncode == 0:
            if reasons:
                say(f"Containers are run with {tried.said}, as podman by itself says: {reasons[0]}")
            return tried
        reasons += done.stderr.strip().splitlines()[-1:]
    raise ImageError("\n".join(["podman starts no container here:", *reasons]))


def exists(image: str) -> bool:
    """Whether there is an image of this name."""
    return call("image", "exists", image, check=False).returncode == 0


def prune() -> None:
    """Remove what earlier runs left: containers whose owner has ended, layers that no image has, and images that are
    a week old."""
    owner_of_each = f'--format={{{{.ID}}}} {{{{index .Labels "{LABEL}"}}}}'
    for line in call("ps", "--all", f"--filter=label={LABEL}", owner_of_each).stdout.splitlines():
        container, _, owner = line.partition(" ")
        if not Path("/proc", owner).is_dir():
            call("rm", "--force", "--time=0", container, check=False)
    call("image", "prune", "--force", f"--filter=label={LABEL}", check=False)
    old = ("--filter=until=168h", f"--filter=label={LABEL}", "--format={{.Repository}}:{{.Tag}}")
    for name in call("images", *old).stdout.split():
        call("rmi", name, check=False)  # not one that others are built on


def _ways() -> list[Way]:
    runtime = ("--runtime=runc",)
    limits = Path(tempfile.gettempdir(), f"gpu-inference-server-containers-{os.getuid()}.conf")
    limits.write_text(_LIMITS)
    return [
        Way(),
        Way("runc", runtime),
        Way("runc and the host's network", runtime, host_network=True),
        Way(
            "runc, the host's network and limits of our own",
            runtime,
            host_network=True,
            environment={"CONTAINERS_CONF": str(limits)},
        ),
    ]
