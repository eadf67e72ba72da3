"""Another user on this machine, who may write in a folder and nowhere else."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLAYS = "plays another user of this machine"  # how the reason of a skip begins: those are counted in the end
UID = 54321  # that nobody has


def open_up(root: Path) -> None:
    """Let everybody write in a folder; a test that cannot become another user is skipped."""
    if os.geteuid() != 0:
        pytest.skip(f"{PLAYS}: needs root")
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode | (0o777 if path.is_dir() else 0o666))


def attack(root: Path, script: str) -> None:
    """Run a shell script as the attacker, in the folder."""
    open_up(root)
    done = subprocess.run(["sh", "-ec", script], cwd=root, user=UID, group=UID, extra_groups=[], check=False)
    assert done.returncode == 0


@contextmanager
def attacking(root: Path, *moves: Callable[[], None]) -> Iterator[None]:
    """Let the attacker do that in the folder, over and over, for as long as the block runs.

    Args:
        moves: Each of them; one that fails is tried again the next time.
    """
    open_up(root)
    child = os.fork()
    if child == 0:
        try:
            os.chdir(root)  # the folders above are not for him to enter
            os.umask(0)
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            while os.getppid() != 1:
                for move in moves:
                    try:
                        move()
                    except OSError:  # what is not there at the moment is there the next time
                        continue
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the attacker gave up"


def replacing(path: str, content: bytes) -> Callable[[], None]:
    """A move: put another file into the place of one, in one step."""

    def move() -> None:
        own = Path(f"{path}.attacker")
        own.write_bytes(content)
        own.rename(path)

    return move
