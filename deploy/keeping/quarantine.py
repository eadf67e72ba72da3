"""The models that are left out of a server, since they do not load or harm it: by name, with the reason.

One stays out until it serves again, as after a `reload`. A restart of the server tries those whose files have changed.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Fingerprint = frozenset[tuple[str, int, int]]  # of every file: its path, size and time


@dataclass(frozen=True)
class _Case:
    reason: str
    files: Fingerprint  # as they were then
    passing: bool


class Quarantine:
    """What is left out of the servers over one model repository, one after the other."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cases: dict[str, _Case] = {}

    def add(self, model: str, reason: str, *, passing: bool = False) -> None:
        """Leave a model out from now on; a passing case only until the server is restarted."""
        self._cases[model] = _Case(reason, fingerprint(self._root / model), passing)

    def release(self, models: Collection[str]) -> bool:
        """Forget the case of those models; return whether there was one."""
        found = self._cases.keys() & set(models)
        for model in found:
            del self._cases[model]
        return bool(found)

    def reasons(self) -> dict[str, str]:
        """Return {model: why it is left out}."""
        return {model: case.reason for model, case in self._cases.items()}

    def review(self) -> None:
        """Forget the cases that a new server may try: the passing ones, and models whose files were changed."""
        for model, case in list(self._cases.items()):
            if case.passing or fingerprint(self._root / model) != case.files:
                del self._cases[model]


def fingerprint(folder: Path) -> Fingerprint:
    """Tell the files of a model from what they will be after any change, by their sizes and times."""
    return frozenset(_files(folder))


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        if not any(part.startswith(".") or part == "__pycache__" for part in inner.parts):
            with suppress(OSError):  # it is being written
                if path.is_file():
                    found = path.stat()
                    yield str(inner), found.st_size, found.st_mtime_ns
