"""What became of a model, and how that is said."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class VersionChange:
    """What became of a model: which version answered before, and which one does now."""

    model: str
    before: int | None  # the version that answered; None: none did, or no server is up
    after: int  # that answers now; with no server up: that will
    parked: tuple[int, ...]  # the versions on disk that are not served
    live: bool = True  # False: no server serves this repository, only what lies there was changed

    def __str__(self) -> str:
        if not self.live:
            return f"{self.model}: no server serves this repository now; the next one will serve version {self.after}"
        if self.before is None:
            return f"{self.model}: version {self.after}"
        if self.before == self.after:
            return f"{self.model}: version {self.after}, as before"
        return f"{self.model}: version {self.before} → {self.after}"


def summary(changes: Sequence[VersionChange]) -> str:
    """Sum up what a command did: versions before and after, and the next command."""
    changed = [change for change in changes if change.before != change.after]
    if not changed:
        what = str(changes[0]) if len(changes) == 1 else "Every model serves the version that it did."
        return f"{what}\nNext: python -m deploy status"
    last = changed[0]
    if not last.live:
        following = "python -m deploy up"
    elif last.before is None:
        following = "python -m deploy status"
    elif last.after > last.before:
        following = f"python -m deploy rollback {last.model} --to {last.before}   (the way back)"
    else:
        following = f"python -m deploy promote {last.model} {last.before}   (the way back)"
    return f"{'; '.join(map(str, changed))}\nNext: {following}"
