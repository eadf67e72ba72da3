"""What a run is called in MLflow, as its flags have it: --run.name, --run.tags and --run.note."""

from dataclasses import dataclass

from training.errors import TrainingError
from training.runs.outbox import admitted

_NOTE = "mlflow.note.content"  # what MLflow's page shows of a run


@dataclass(frozen=True)
class Labels:
    """What a run is called, and can be found by.

    Args:
        name: What MLflow calls it; None for the time at which it began, which its folder is called by.
        tags: What it can be found by, e.g. '{team: vision}'.
        note: What MLflow's page says of it.
    """

    name: str | None = None
    tags: dict[str, str] | None = None
    note: str | None = None

    def as_tags(self) -> dict[str, str]:
        """Return tags and note as MLflow keeps both.

        Raises:
            TrainingError: MLflow admits no tag of that name.
        """
        for name in self.tags or {}:
            if admitted(name) != name:
                raise TrainingError(
                    f"--run.tags: MLflow admits no tag called {name!r}",
                    note="a name has letters, digits, spaces, and _ - . : /, 250 at most",
                )
        return {**(self.tags or {}), **({_NOTE: self.note} if self.note else {})}
