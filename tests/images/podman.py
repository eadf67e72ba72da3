"""podman and buildah, as far as they work on this machine: found, tried, and called.

Where podman's defaults start no container, as in a sandbox, lower limits, another runtime and the host's
network are tried in turn, and what it took is said.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What has to be here, and the packages that bring it.
PROGRAMS = {"buildah": "buildah", "podman": "podman", "debootstrap": "debootstrap", "cc": "gcc libc6-dev"}
# On every image of ours and, by inheritance, on whatever is built on one; on every container, with its owner's process.
LABEL = "gpu-inference-server.tests"
OWNED = f"--label={LABEL}={os.getpid()}"
NAMES = "localhost/gpu-inference-server"  # what the names of our images begin with

# podman raises these, which a sandbox does not let it: what is enough for a server, as far as this process has it.
_LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 16_384), "nproc": (resource.RLIMIT_NPROC, 4096)}


class ImageError(Exception):
    """An image could not be built, or a container not be started; with what was said at last."""


@dataclass(frozen=True)
class Way:
    """How containers are run here."""

    said: str
    options: tuple[str, ...] = ()  # of podman itself
    limits: tuple[str, ...] = ()  # of `podman run`
    host_network: bool = False

    @property
    def run(self) -> list[str]:
        """Options that every `podman run` needs here, with the mark of this process."""
        return [OWNED, *self.limits, *(["--network=host"] if self.host_network else [])]


def say(line: str) -> None:
    """Say what is being done, or was found; stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def missing() -> str | None:
    """Say why no image can be built here, with what would help; None where one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        packages = " ".join(PROGRAMS[program] for program in absent)
        return f"needs {', '.join(absent)}: sudo apt-get install {packages}"
    if os.geteuid() != 0:
        return "needs root, to make a Debian with debootstrap"
    return None


def call(
    *words: str | Path, options: Sequence[str] = (), check: bool = True, timeout_s: float = 300
) -> "subprocess.CompletedProcess[str]":
    """Run podman; an ImageError says how it failed, unless that may be."""
    command = ["podman", *options, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
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
        words = ["run", "--rm", *tried.run, "--entrypoint=/bin/true", image]
        done = call(*words, options=tried.options, check=False)
        if done.returncode == 0:
            if reasons:
                say(f"Containers are run with {tried.said}, as podman by itself says: {reasons[0]}")
            return tried
        reasons += done.stderr.strip().splitlines()[-1:]
    raise ImageError("\n".join(["podman starts no container here:", *reasons]))


def exists(image: str) -> bool:
    """Whether there is an image of this name."""
    return call("image", "exists", image, check=False).returncode == 0


def remove_abandoned() -> None:
    """Remove the containers of processes that have ended."""
    owner_of_each = f'--format={{{{.ID}}}} {{{{index .Labels "{LABEL}"}}}}'
    for line in call("ps", "--all", f"--filter=label={LABEL}", owner_of_each).stdout.splitlines():
        container, _, owner = line.partition(" ")
        if not Path("/proc", owner).is_dir():
            call("rm", "--force", "--time=0", container, check=False)


def _ways() -> list[Way]:
    limits = tuple(f"--ulimit={name}={_limit(*limit)}:{_limit(*limit)}" for name, limit in _LIMITS.items())
    runtime = ("--runtime=runc",)
    return [
        Way("podman's defaults"),
        Way("lower limits", (), limits),
        Way("lower limits and runc", runtime, limits),
        Way("lower limits, runc and the host's network", runtime, limits, host_network=True),
    ]


def _limit(kind: int, enough: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return enough if hard == resource.RLIM_INFINITY else min(hard, enough)
