"""The models that are left out of a server, since they do not load or harm it: by name, with the reason.

One stays out until it serves again, as after a `reload`. A restart of the server tries those whose files have changed.
"""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from deploy.triton.state import Case


class Quarantine:
    """What is left out of the servers over one model repository, one after the other."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.cases: dict[str, Case] = {}
        self._passing: set[str] = set()

    def add(self, model: str, reason: str, *, passing: bool = False) -> None:
        """Leave a model out from now on; a passing case only until the server is restarted."""
        self.cases[model] = Case(reason, fingerprint(self._root / model))
        (self._passing.add if passing else self._passing.discard)(model)

    def release(self, models: Collection[str]) -> bool:
        """Forget the cases of those models; return whether there was one."""
        found = self.cases.keys() & set(models)
        for model in found:
            del self.cases[model]
        return bool(found)

    def reasons(self) -> dict[str, str]:
        """Return {model: why it is left out}."""
        return {model: case.reason for model, case in self.cases.items()}

    def review(self) -> None:
        """Forget the cases that a new server may try: the passing ones, and models whose files were changed."""
        changed = {model for model, case in self.cases.items() if fingerprint(self._root / model) != case.files}
        self.release(changed | self._passing)
        self._passing.clear()


def fingerprint(folder: Path) -> str:
    """Return what tells the files of a model from what they are after any change: by their sizes and times."""
    return hashlib.sha256(repr(sorted(_files(folder))).encode()).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        if not any(part.startswith(".") or part == "__pycache__" for part in inner.parts):
            with suppress(OSError):  # it is being written
                if path.is_file():
                    found = path.stat()
                    yield str(inner), found.st_size, found.st_mtime_ns
