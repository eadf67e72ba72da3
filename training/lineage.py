"""Where a checkpoint came from: the commit, the data, the run. lightning/lineage_callback.py writes it down."""

import subprocess
from dataclasses import asdict, dataclass

from contracts import layout
from contracts.trust.account import Account

KEY = "lineage"  # in the checkpoint's dictionary


@dataclass(frozen=True)
class Lineage:
    """What a checkpoint was trained from. Plain values only, so it loads with `weights_only=True`."""

    family: str
    data_fingerprint: str
    git_commit: str | None
    git_dirty: bool | None
    mlflow_run_id: str | None
    account: Account | None = None  # who the training ran as; None in checkpoints from before that was written down

    def tags(self) -> dict[str, str]:
        """Return what the MLflow run is told of it."""
        return {key: str(value) for key, value in asdict(self).items()} | {"account": str(self.account)}


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
