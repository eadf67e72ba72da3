"""Where a checkpoint came from: the commit, the data, the run. `RecordLineage` (lineage_callback.py) writes it down."""

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


<<<<<<< HEAD
class RecordLineage(pl.Callback):
    """A callback that writes the Lineage into every checkpoint, and as tags into the MLflow run."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._commit, self._dirty = git_state()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tag the MLflow run, once among several processes."""
        if trainer.is_global_zero and isinstance(trainer.logger, MLFlowLogger):
            for key, value in asdict(self._lineage(trainer)).items():
                trainer.logger.experiment.set_tag(trainer.logger.run_id, key, value)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the lineage to what is saved."""
        checkpoint[KEY] = asdict(self._lineage(trainer))

    def _lineage(self, trainer: pl.Trainer) -> Lineage:
        run_id = trainer.logger.run_id if isinstance(trainer.logger, MLFlowLogger) else None
        fingerprint = trainer.datamodule.fingerprint  # type: ignore[attr-defined]  # set by the trainer
        return Lineage(self._family, fingerprint, self._commit, self._dirty, run_id)


=======
>>>>>>> d60e5ca (Tests: what git has is what they look at; commands run in the test's process; heavy tests are marked; export needs no torch for a brought graph)
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
