"""Steps that are not done twice: what a step made is kept under a digest of everything it was made from.

A step is a folder, filled beside its place and renamed into it: an interrupted export leaves only whole steps,
and goes on from them. Two exports at once may both make a step; the first one's is kept.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_DAYS_KEPT = 14


class Cache:
    """The steps of one model's exports.

    Args:
        directory: Where they are kept.
        tools: Versions of whatever the steps are made with; a step of another version is made anew.
        force: Make every step anew.
    """

    def __init__(self, directory: Path, tools: dict[str, str], *, force: bool = False) -> None:
        self._directory, self._tools, self._force = directory, tools, force
        self._made: set[Path] = set()

    def step(
        self,
        name: str,
        make: Callable[[Path], object],
        *,
        reusable: Callable[[Path], bool] = Path.is_dir,
        **inputs: object,
    ) -> tuple[Path, bool]:
        """Return the folder of the step `name` of these `inputs`, made if it is missing, and whether it was there.

        Args:
            make: Fills the folder it is given. What it does must depend on `inputs` alone.
            reusable: Whether what is there already will do; a search that ran out of time will not.
            inputs: Anything that JSON or repr() can tell apart: digests, recipes, names.
        """
        described = json.dumps([self._tools, inputs], sort_keys=True, default=repr)
        place = self._directory / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
        if place.is_dir() and (place in self._made or (not self._force and reusable(place))):
            os.utime(place)
            return place, True
        unfinished = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            make(unfinished)
            (unfinished / "inputs.json").write_text(described)  # for people who wonder why a step was redone
            if self._force or (place.is_dir() and not reusable(place)):
                shutil.rmtree(place, ignore_errors=True)
            try:
                unfinished.rename(place)
            except OSError:  # another export was faster
                if not place.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._made.add(place)
        return place, False

    def prune(self) -> None:
        """Remove the steps that no export has used for two weeks, and what killed ones left."""
        limit = time.time() - _DAYS_KEPT * 86400
        for place in self._directory.glob("*"):
            with suppress(FileNotFoundError):  # another export has just renamed it into its place
                if place.stat().st_mtime < limit:
                    shutil.rmtree(place, ignore_errors=True)
