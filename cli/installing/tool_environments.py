"""Environments of their own for tools that are heavy or do not go with the project's packages, made on first use.

    python -m cli.installing.tool_environments data        make it now; says where its programs are

What goes into NAME stands in configs/environments/NAME.in, locked in NAME.lock beside it (`make lock`). It is made in
.venv-NAME, or below $TOOL_ENVIRONMENTS, where several checkouts can share it. One of an older lock is brought to the
new one.
"""

import argparse
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.installing import environments
from cli.run import run_command_line

_ROOT = Path(__file__).resolve().parent.parent.parent
_LOCKS = _ROOT / "configs" / "environments"
_OF_LOCK = ".of-lock"  # in the environment: the SHA-256 of the lock that it was made from


def main() -> int:
    """Make the environment that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m cli.installing.tool_environments", description=__doc__)
    parser.add_argument("name", choices=names())
    print(f"Its programs are in {programs(parser.parse_args().name)}")
    return 0


def names() -> list[str]:
    """Return the environments that there are."""
    return sorted(path.stem for path in _LOCKS.glob("*.lock"))


def programs(name: str, say: Callable[[str], None] | None = None) -> Path:
    """Return the folder of an environment's programs, its `python` among them; make it where it is not there.

    Args:
        say: Is told once that it is made, as that takes minutes; None: stderr.

    Raises:
        InstallError: it could not be made.
    """
    home, lock = _home(name), _LOCKS / f"{name}.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = home / _OF_LOCK
    with _alone(home):
        if not (home / environments.MADE).exists() or not stamp.exists() or stamp.read_text() != digest:
            there = (home / environments.MADE).exists()
            (say or _say)(
                f"Bringing the environment for {name} in {home} to what {lock.name} says now" if there else
                f"Making the environment for {name} in {home} from {lock.name} (once; a few minutes)"
            )  # fmt: skip
            environments.make(home, lock)
            stamp.write_text(digest)
    return home / "bin"


def _home(name: str) -> Path:
    return Path(os.environ.get("TOOL_ENVIRONMENTS", _ROOT)).resolve() / f".venv-{name}"


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock under which it is made: a second process waits, and finds it made."""
    home.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{home}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command_line(main, environments.InstallError)
