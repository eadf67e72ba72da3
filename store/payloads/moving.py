"""Whole inputs on their way: from the spool to their place, read again, removed for good.

Where they go is PAYLOADS_URL, a folder or s3://BUCKET/PREFIX (AWS_ENDPOINT_URL and the like say which S3).
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from store.errors import PayloadError
from store.payloads.places import Place
from store.payloads.samples import WAITING, files

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/\d{4}-\d\d-\d\d/[A-Za-z0-9_-]{1,64}")  # MODEL/DAY/ID


class Payloads:
    """Whole inputs: those that wait in a spool, and those that are in their place."""

    def __init__(self, folder: Path, place: Place) -> None:
        self._waiting, self._place = folder / WAITING, place

    async def move(self) -> int:
        """Bring what waits to its place; return how many.

        Raises:
            PayloadError: the place does not take them; they wait.
        """
        moved = 0
        for path in list(files(self._waiting)):
            await self._asked(self._move, path)
            moved += 1
        return moved

    async def remove(self, names: Iterable[str]) -> int:
        """Remove inputs for good, wherever they are; return how many were asked for.

        Raises:
            PayloadError: the place does not answer.
        """
        count = 0
        for name in filter(_NAME.fullmatch, names):
            (self._waiting / name).unlink(missing_ok=True)  # first: what moves it looks afterwards
            await self._asked(self._place.remove, name)
            count += 1
        return count

    async def read(self, name: str) -> bytes:
        """Return inputs.

        Raises:
            PayloadError: they are not there, or the place does not answer.
        """
        with suppress(FileNotFoundError):
            return (self._waiting / name).read_bytes()
        return await self._asked(self._place.read, name)

    async def before(self, day: str) -> list[str]:
        """Return the names of all from before a day, as in 2026-11-30."""
        waiting = [str(path.relative_to(self._waiting)) for path in files(self._waiting)]
        names = [*waiting, *await self._asked(lambda _: list(self._place.names()), "")]
        return sorted({name for name in names if _NAME.fullmatch(name) and name.split("/")[1] < day})

    def _move(self, path: Path) -> None:
        name = str(path.relative_to(self._waiting))
        try:
            self._place.write(name, path.read_bytes())
            path.unlink()
        except FileNotFoundError:  # it was erased meanwhile
            self._place.remove(name)

    async def _asked(self, ask: Callable[[Any], _T], what: Any) -> _T:
        try:
            return await asyncio.to_thread(ask, what)
        except FileNotFoundError:
            raise PayloadError(f"there are no inputs {what}", note="they were not sampled, or are gone") from None
        except OSError as error:
            raise PayloadError(f"whole inputs cannot be reached: {str(error).splitlines()[0]}") from error
