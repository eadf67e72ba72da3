"""Where a checkpoint came from: the commit, the data, the run. lightning/lineage_callback.py writes it down."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    prepared: str | None = None  # the file that its data was read from; None: the family's own way


def prepared_from(data: Any) -> str | None:
    """Return the file that a data module was told to read, relative to the repository's root where it lies below."""
    named = getattr(data, "prepared", None)
    if named is None:
        return None
    path = Path(named).resolve()
    return str(path.relative_to(layout.ROOT)) if path.is_relative_to(layout.ROOT) else str(path)


def data_of(family: Any, lineage: Lineage) -> Any:
    """Make the data module of a Family anew, of the data that a checkpoint was trained on."""
    return family.data() if lineage.prepared is None else family.data(prepared=layout.ROOT / lineage.prepared)


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit checked out and whether tracked files differ from it; (None, None) outside git.

    DVC writes its locks while a pipeline runs. They say which data there is, and of that there is a fingerprint.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*dvc.lock"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(layout.ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
