"""Records that no table can hold: kept in a file of the spool, each with the reason, until somebody looks at them."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import msgpack  # type: ignore[import-untyped]  # has no types

from contracts.files import whole
from contracts.files.locks import locked
from store.writing.segments import Packed

_FILE, _LOCK = "refused.jsonl", "refused.lock"
_MOST_BYTES = 64 << 20  # more of the same tells nobody anything


class Refused:
    """The refused records of a spool, as its writer keeps them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: set[tuple[str, int]] = set()  # that a batch which is tried again does not keep twice

    def keep(self, segment: str, records: Iterable[tuple[Packed, str]]) -> int:
        """Keep records of a segment with their reasons, before its place is passed; return how many are new.

        After a kill they may be there twice; where the disk is full they are counted alone.
        """
        new = [(packed, why) for packed, why in records if (segment, packed.end) not in self._kept]
        if not new:
            return 0
        self._kept |= {(segment, packed.end) for packed, _ in new}
        path = self._folder / _FILE
        with suppress(OSError), locked(self._folder / _LOCK), _opened(path) as kept:
            if path.stat().st_size < _MOST_BYTES:
                kept.writelines(_line(segment, packed, why) for packed, why in new)
        return len(new)

    def finished(self, segment: str) -> None:
        """Forget a segment that will not be read again."""
        self._kept = {(name, end) for name, end in self._kept if name != segment}


def erase(folder: Path, fields: Iterable[str], name: str) -> int:
    """Remove the records that have a name in one of these fields; return how many."""
    path = folder / _FILE
    if not path.exists():
        return 0
    with locked(folder / _LOCK):
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if name not in _named(line, fields)]
        if len(kept) < len(lines):
            whole.write(path, "".join(kept), mode=0o600)
    return len(lines) - len(kept)


def _line(segment: str, packed: Packed, why: str) -> str:
    told = {"why": why, "segment": segment, "end": packed.end, "record": packed.content.hex()}
    return f"{json.dumps(told)}\n"


def _opened(path: Path) -> TextIO:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "a")


def _named(line: str, fields: Iterable[str]) -> Iterator[str]:
    try:
        record = msgpack.unpackb(bytes.fromhex(json.loads(line)["record"]))
    except Exception:  # whatever it is, nobody can be named in it
        return
    if isinstance(record, dict):
        yield from (value for field in fields if isinstance(value := record.get(field), str))
