"""Read a spool's segments: the records that are whole, from a place on, and whether more can come.

A process that was killed, a full disk or a power cut may leave half a record, and a bad disk a wrong one: what is no
record is passed over up to the next one that is.
"""

import fcntl
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from store.spool import FRAME, MARK, MOST_BYTES

_CHUNK = (1 << 20) + FRAME.size + MOST_BYTES  # so that the largest record fits, wherever it begins


@dataclass(frozen=True)
class Packed:
    """A record as it lies in a segment, and where it ends."""

    content: bytes
    end: int


@dataclass(frozen=True)
class Stretch:
    """What was read of a segment.

    Attributes:
        begin: From where on, in bytes.
        records: Those that are whole.
        end: Up to where; the next stretch begins there.
        damaged: How many places are no records.
        finished: Whether nothing is left, and nobody will append more.
    """

    begin: int
    records: tuple[Packed, ...]
    end: int
    damaged: int
    finished: bool


def read(path: Path, begin: int, most: int) -> Stretch:
    """Read up to `most` records, and about a megabyte at most.

    Raises:
        FileNotFoundError: the segment is gone.
    """
    with path.open("rb") as stream:
        complete = _complete(stream.fileno())  # before it is read: what is there then is all
        stream.seek(begin)
        content = stream.read(_CHUNK)
        size = os.fstat(stream.fileno()).st_size
    found: list[Packed] = []
    at = damaged = 0
    whole = len(content) < _CHUNK  # not by the size: since it was read, the other half of a record may have come
    while at < len(content) and len(found) < most:
        if (length := _record_at(content, at)) is not None:
            found.append(Packed(content[at + FRAME.size : at + length], begin + at + length))
            at += length
            continue
        after = _next_record(content, at + 1)
        if after is None:
            if not whole and at:
                break  # its other half is in the next stretch
            if whole and not complete:
                break  # it is being written
            after = len(content)
        damaged += 1
        at = after
    end = begin + at
    return Stretch(begin, tuple(found), end, damaged, complete and end >= size)


def _record_at(content: bytes, at: int) -> int | None:
    """Return the length of the frame there; None if there is none that is whole and right."""
    if at + FRAME.size > len(content):
        return None
    mark, length, checksum = FRAME.unpack_from(content, at)
    start, end = at + FRAME.size, at + FRAME.size + length
    if mark != MARK or length > MOST_BYTES or end > len(content):
        return None
    return end - at if zlib.crc32(memoryview(content)[start:end]) == checksum else None


def _next_record(content: bytes, at: int) -> int | None:
    while (at := content.find(MARK, at)) >= 0:
        if _record_at(content, at) is not None:
            return at
        at += 1
    return None


def _complete(descriptor: int) -> bool:
    """Tell whether nobody holds the lock: the process that wrote is done, or dead."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True  # it is given back as the file is closed
