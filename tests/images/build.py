"""Build an image statement by statement, as `docker build` would: with buildah, which needs no daemon."""

import fcntl
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from contracts import layout
from tests.images import debian, pip_settings, podman
from tests.images.podman import LABEL, NAMES, ImageError

_SHOWN_LINES = 25
_DIES_WITH_US = ("setpriv", "--pdeathsig=INT")
_GRACE_S = 20  # for an interrupted build to take its mounts away


@dataclass(frozen=True)
class Image:
    """An image that was built."""

    name: str
    identity: str  # of its content: whoever builds another of this name does not change it
    size_bytes: int
    seconds: float  # that it took; hardly any where every layer was there

    def __str__(self) -> str:
        return f"{self.name}: {self.size_bytes / 1e6:,.0f} MB, built in {self.seconds:.0f} s"


def build(
    dockerfile: Path,
    name: str,
    *,
    context: Path = layout.ROOT,
    target: str | None = None,
    arguments: Mapping[str, str] | None = None,
    kind: Literal["built", "base"] = "built",
) -> Image:
    """Build `dockerfile`; layers that an earlier build made of the same are taken.

    Args:
        name: Of the image, below NAMES.
        arguments: {build argument: value}.
        kind: What takes minutes to make, a base, is kept longer.

    Raises:
        ImageError: a statement failed, or no process can be started as the image's own user.
    """
    started = time.monotonic()
    command = [*_DIES_WITH_US, "buildah", "bud", "--layers", "--format=docker", "--isolation=chroot", "--network=host"]
    command += [f"--file={dockerfile}", f"--tag={NAMES}/{name}", f"--label={LABEL}={kind}"]
    command += [f"--target={target}"] if target else []
    command += [f"--build-arg={key}={value}" for key, value in (arguments or {}).items()]
    with alone(), tempfile.TemporaryDirectory(prefix="images-") as scratch:
        settings = pip_settings.of_this_machine().options(Path(scratch))
        _run([*command, f"--iidfile={scratch}/id", *settings, str(context)], Path(scratch, "build.log"))
        identity = Path(scratch, "id").read_text().strip().removeprefix("sha256:")
    _see_that_it_starts(identity)
    size = int(podman.call("image", "inspect", "--format={{.Size}}", identity).stdout)
    return Image(f"{NAMES}/{name}", identity, size, time.monotonic() - started)


def _see_that_it_starts(image: str) -> None:
    """A build does not ask whether there is such a user as USER names."""
    way = debian.way()
    podman.call("run", "--rm", *way.run, "--entrypoint=/bin/true", image, options=way.options)


@contextmanager
def alone() -> Iterator[None]:
    """One build at a time: layers are made once, and a container that a build works in is known to be left behind."""
    place = Path.home() / ".cache" / "gpu-inference-server-images.lock"
    place.parent.mkdir(exist_ok=True)
    with place.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            _remove_left_behind()


def _remove_left_behind() -> None:
    """Remove the containers in which an interrupted or failed build of ours was at work."""
    listed = subprocess.run(["buildah", "containers", "--json"], capture_output=True, text=True, check=False).stdout
    for container in json.loads(listed or "null") or ():
        image = container["imageid"]
        labels = podman.call("image", "inspect", "--format={{json .Labels}}", image, check=False).stdout
        if LABEL in labels:
            subprocess.run(["buildah", "rm", container["id"]], capture_output=True, check=False)


def _run(command: list[str], log: Path) -> None:
    with log.open("w+") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, process_group=0
        )
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        if code:
            raise ImageError(f"buildah: exit code {code}\n{_last(said)}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(_GRACE_S)
            return


def _last(said: IO[str]) -> str:
    said.seek(0)
    return "".join(said.readlines()[-_SHOWN_LINES:])
