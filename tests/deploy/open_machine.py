"""This machine as one on which other users may read the Python, the checkout and the server environment.

They may lie in a home of root's alone, where no server of root's runs unprivileged. A mount namespace shows them to
the processes in it through folders that everybody may enter: nothing is copied, and nothing is left to be undone.
"""

import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from contracts import layout
from deploy.triton import environment
from tests.attackers import PLAYS

_ALL_MAY_ENTER = 0o005


def inside(*places: Path) -> list[str]:
    """What goes before a command, so that it and what it starts see this machine so; skips where that cannot be made.

    Args:
        places: What others shall be able to reach, beside what a server needs.
    """
    if told := _missing():
        pytest.skip(told)
    needed = [Path(sys.base_prefix), Path(sys.prefix), layout.ROOT, environment.HOME, *places]
    shown = {path: closed for path in map(Path.resolve, needed) if (closed := _closed(path)) is not None}
    lines = ["umask 022", "hold=$(mktemp -d)", 'mount -t tmpfs none "$hold"']
    for number, path in enumerate(shown):
        lines.append(f'mkdir "$hold/{number}"; mount --bind {shlex.quote(str(path))} "$hold/{number}"')
    for closed in dict.fromkeys(shown.values()):
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(closed))}")
    for number, path in enumerate(shown):
        place = shlex.quote(str(path))
        lines.append(f'mkdir -p {place}; mount --bind "$hold/{number}" {place}')
    lines += ['umount --lazy "$hold"; rmdir "$hold"', 'exec "$@"']
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", "\n".join(lines), "sh"]


def _closed(path: Path) -> Path | None:
    """The folder nearest to the root on the way to a path that not everybody may enter."""
    way = [folder for folder in path.parents[::-1] if folder.stat().st_mode & _ALL_MAY_ENTER != _ALL_MAY_ENTER]
    return way[0] if way else None


@cache
def _missing() -> str | None:
    try:
        done = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    except FileNotFoundError:
        return f"{PLAYS}: needs unshare (util-linux)"
    return None if done.returncode == 0 else f"{PLAYS}: needs root, and the right to mount"
