"""Remove layers that no image has any more, and old images: some seconds of work for the disk, which no test waits for.

python -m tests.images.prune
"""

import subprocess
import sys

from contracts import layout
from tests.images import build, podman
from tests.images.podman import LABEL

_KEPT_H = {"built": 168, "base": 1344}  # a week, or what takes minutes to make eight of them


def later() -> None:
    """Let another process do it, when no image is being built; it may outlive this one."""
    subprocess.Popen(
        ["nice", sys.executable, "-m", "tests.images.prune"],
        cwd=layout.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    """Remove what can be made again, of ours alone."""
    with build.alone():
        for kind, hours in _KEPT_H.items():
            old = (f"--filter=label={LABEL}={kind}", f"--filter=until={hours}h", "--format={{.Repository}}:{{.Tag}}")
            for name in podman.call("images", *old).stdout.split():
                podman.call("rmi", name, check=False)
        podman.call("image", "prune", "--force", f"--filter=label={LABEL}", check=False, timeout_s=1800)


if __name__ == "__main__":
    main()
