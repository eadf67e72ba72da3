"""A Debian made here, by debootstrap, as no registry of images need be reached: what stands in for `python:3.11-slim`,
and what the stand-in of NVIDIA's image is built on.
"""

import hashlib
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.images import podman
from tests.images.podman import LABEL, NAMES, ImageError

SUITE, PYTHON = "bookworm", "3.11"
# Beside a minimal system what the slim image of Python has, too: that Python, libpython, certificates.
PACKAGES = ("ca-certificates", "netbase", "tzdata", "python3", "python3-venv", f"libpython{PYTHON}")
# What a published image does not have either.
LEFT_OUT = ("./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*", "./var/log/*")


def name(more: tuple[str, ...] = ()) -> str:
    """Return the name of the image with `more` packages beside PACKAGES."""
    packages = (*PACKAGES, *more)
    return f"{NAMES}/debian:{SUITE}-{hashlib.sha256(repr((packages, LEFT_OUT)).encode()).hexdigest()[:8]}"


@cache
def image(more: tuple[str, ...] = ()) -> str:
    """Return the name of the image, made once a machine.

    Args:
        more: Packages beside PACKAGES.

    Raises:
        ImageError: debootstrap failed.
    """
    if podman.exists(made := name(more)):
        return made
    podman.say(f"Making a Debian {SUITE} (once; a minute or two)")
    with tempfile.TemporaryDirectory(prefix="debian-") as scratch:
        root = Path(scratch, "root")
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join((*PACKAGES, *more))}",
            SUITE,
            str(root),
            *_mirror(),
        ]
        _must(command)
        without = [f"--exclude={pattern}" for pattern in LEFT_OUT]
        _must(["tar", "--create", f"--directory={root}", *without, f"--file={scratch}/root.tar", "."])
        podman.call("import", "--quiet", f"--change=LABEL {LABEL}=base", f"{scratch}/root.tar", made, timeout_s=300)
    return made


def way() -> podman.Way:
    """How containers are run here."""
    return podman.way(image())


def _mirror() -> list[str]:
    """Where this machine's own apt takes that Debian from, if it does; debootstrap knows a place otherwise."""
    wanted = "$(REPO_URI) $(CODENAME) $(ORIGIN) $(COMPONENT)"
    try:
        listed = subprocess.run(
            ["apt-get", "indextargets", "--format", wanted], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return []
    for line in listed.splitlines():
        address, *what = line.split(" ")
        if what == [SUITE, "Debian", "main"]:
            return [address]
    return []


def _must(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise ImageError(f"{command[0]}: exit code {done.returncode}\n{said}")
