"""What every step of one GPU day is given, and where it puts what it found."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from deploy.triton.settings import ADMIN_KEY_VARIABLE, SERVED_VARIABLE

Device = Literal["gpu", "cpu"]
_FILE_NAME = "day.json"


@dataclass(frozen=True)
class Day:
    """One GPU day.

    Attributes:
        folder: Holds the evidence.
        device: What is served on; "cpu" is a rehearsal.
        export: The arguments of `python -m export` that name what is exported.
        requests: Answers to look at under load.
        drill_requests: How many the drill sends at least.
    """

    folder: Path
    device: Device
    export: tuple[str, ...]
    requests: int = 10_000
    drill_requests: int = 5_000

    @property
    def work(self) -> Path:
        """What the steps make and nobody has to keep: repository, caches, servers. Not in the bundle."""
        return self.folder / "work"

    @property
    def repository(self) -> Path:
        """The day's own model repository."""
        return self.work / "model_repository"

    def log(self, step: str) -> Path:
        """Return the file of what a step printed."""
        return self.folder / "logs" / f"{step}.log"

    def result(self, step: str) -> Path:
        """Return the file of what a step found."""
        return self.folder / "steps" / f"{step}.json"

    def environment(self, artifacts: Path | None = None) -> dict[str, str]:
        """Return the environment of the commands of this day, which touch nothing outside of its folder.

        Args:
            artifacts: Another folder than the day's own, for a server beside another.
        """
        own = artifacts or self.work / "artifacts"
        ours = {name: value for name, value in os.environ.items() if name != ADMIN_KEY_VARIABLE}  # each makes its own
        return {
            **ours,
            "ARTIFACTS_DIR": str(own),
            "MODEL_REPOSITORY": str(self.repository),
            SERVED_VARIABLE: str(own / "served"),
            "PYTHONUNBUFFERED": "1",  # what a step said before it was killed is in its log
        }

    def write(self) -> None:
        """Write it down for the processes of the steps."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _FILE_NAME).write_text(json.dumps({**asdict(self), "folder": str(self.folder)}, indent=2) + "\n")


def read(folder: Path) -> Day:
    """Read what `Day.write` wrote."""
    raw: Mapping[str, object] = json.loads((folder / _FILE_NAME).read_text())
    return Day(**{**raw, "folder": folder, "export": tuple(raw["export"])})  # type: ignore[arg-type]
