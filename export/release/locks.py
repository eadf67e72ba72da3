"""Lock the packages that steps have of their own, by `python -m deploy environments lock`, before they are sealed.

A release whose requirements.txt were resolved by whoever serves it would not be the same one everywhere.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from contracts import layout
from contracts.errors import PublishError

_TEXT = "requirements.txt"


def make(root: Path, models: Iterable[str], say: Callable[[str], None]) -> None:
    """Write requirements.lock where it is missing, or not of its requirements.txt.

    Args:
        models: Of the repository `root`; most have no packages of their own.
        say: Is told what is locked.

    Raises:
        PublishError: pip finds no versions that go together, with what it says.
    """
    if not (asking := [name for name in models if _asks(root / name / _TEXT)]):
        return
    command = [sys.executable, "-m", "deploy", "environments", "lock", *asking, "--missing", "--repository", str(root)]
    done = subprocess.run(
        command,
        cwd=layout.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise PublishError(f"the packages of a step are not locked: {done.stderr.strip().removeprefix('error: ')}")
    for line in done.stdout.splitlines():
        if not line.startswith("Next: "):
            say(line)


def _asks(text: Path) -> bool:
    return text.is_file() and any(line.partition("#")[0].strip() for line in text.read_text("utf-8").splitlines())
