"""What git has. Tests look at that, never at what somebody exported into the checkout."""

import fnmatch
import subprocess
from functools import cache
from pathlib import Path

from contracts import layout

MODEL_REPOSITORY = layout.ROOT / "model_repository"  # whatever the environment says


@cache
def tracked(folder: str = ".", *, others: bool = False) -> tuple[Path, ...]:
    """The files below `folder` that git has, or was told of with `git add`.

    Args:
        others: Also those that it was not told of yet, and that it does not ignore.

    Raises:
        RuntimeError: this is no git checkout, as an unpacked archive is none.
    """
    more = ["--others", "--exclude-standard"] if others else []
    command = ["git", "ls-files", "-z", "--cached", *more, "--", folder]
    done = subprocess.run(command, cwd=layout.ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            f"git does not say which files it has: {done.stderr.strip()}\n"
            "Note: tests look at what git has, so that what an export made is not taken for it\n"
            "Hint: clone the repository, or here: git init && git add ."
        )
    paths = (layout.ROOT / name for name in done.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def tracked_models(pattern: str) -> list[Path]:
    """The files of git's model repository that match `pattern`, such as "*/config.pbtxt"; sorted."""
    wanted = pattern.split("/")
    found = ((path, path.relative_to(MODEL_REPOSITORY).parts) for path in tracked("model_repository"))
    return sorted(
        path for path, parts in found if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
    )
