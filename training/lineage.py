"""Where a checkpoint came from: the commit, the data, the run. lightning/lineage_callback.py writes it down."""

import subprocess
from dataclasses import dataclass

from contracts import layout

KEY = "lineage"  # in the checkpoint's dictionary


@dataclass(frozen=True)
class Lineage:
    """What a checkpoint was trained from. Plain values only, so it loads with `weights_only=True`."""

    family: str
    data_fingerprint: str
    git_commit: str | None
    git_dirty: bool | None
    mlflow_run_id: str | None


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit checked out and whether tracked files differ from it; (None, None) outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(layout.ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
