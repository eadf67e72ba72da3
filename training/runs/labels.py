"""What a run is called in MLflow, as its flags have it: --run.name, --run.tags and --run.note."""

from dataclasses import dataclass


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
