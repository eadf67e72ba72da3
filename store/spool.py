"""What answers requests leaves its records here: files of this machine, which another process takes to the database.

    spool = Spool(folder)
    spool.put({"kind": "prediction", "id": "…", "time": time.time_ns(), …})   # some 4 µs

A record is in the kernel's hands when `put` returns, so that it outlives the process, killed or not; a power cut may
cost the last seconds. A database is not needed, and a full disk is counted. Each process appends to a segment of its
own, on which it holds a lock as long as it lives: one without is complete, and is removed when it was written.
"""

import fcntl
import logging
import os
import secrets
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]  # has no types

SUFFIX = ".spool"
MOST_BYTES = 256 * 1024  # of a record; a summary that is larger is left out, and the record kept
FRAME = struct.Struct("<2sII")  # MARK, the record's length in bytes, its CRC-32
MARK = b"\xc1\xc1"  # msgpack never writes this byte
log = logging.getLogger("store.spool")

_LOOK_S = 1.0  # between two looks at whether the segment is still there, and between tries to begin one


class Spool:
    """The records of this process. `put` may be called from any thread, and after a fork.

    Attributes:
        written: How many records it has taken.
        lost: How many it could not: the disk or `limit_bytes` is full, or they are no records.
        last_error: Why it lost the last of them; "" if it lost none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 4 << 20,
        segment_s: float = 86_400.0,
        limit_bytes: int = 2 << 30,
        free_bytes: int = 64 << 20,
    ) -> None:
        """Make a spool; nothing is opened before the first record.

        Args:
            folder: Of this machine. It is made, for its owner alone.
            segment_bytes: After which the next segment begins.
            segment_s: After which it begins as well, so that none lies there as long as its place is kept.
            limit_bytes: Of all segments in the folder: with a database that is gone for days there is no end.
            free_bytes: What is left of the disk for others; no segment begins below it.
        """
        self.folder = folder
        self.written = self.lost = 0
        self.last_error, self._loses = "", False
        self._segment_bytes, self._limit_bytes, self._free_bytes = segment_bytes, limit_bytes, free_bytes
        self._segment_s = segment_s
        self._pack = msgpack.Packer(unicode_errors="replace").pack  # half a character in an input costs no record
        self._lock = threading.Lock()
        self._descriptor, self._size, self._look_at = -1, 0, 0.0
        self._path, self._begun = folder, 0.0
        _spools.add(self)

    def put(self, record: dict[str, Any]) -> None:
        """Append a record. Never raises, and waits for nothing but the kernel's copy."""
        try:
            packed = self._packed(record)
            with self._lock:
                self._append(FRAME.pack(MARK, len(packed), zlib.crc32(packed)) + packed)
                self.written += 1
                again, self._loses = self._loses, False
            if again:
                log.warning("records are taken again; %d were lost", self.lost)
        except Exception as error:  # nothing may happen here that costs a request
            with self._lock:
                self.lost += 1
                self.last_error = f"{type(error).__name__}: {error}"
                before, self._loses = self._loses, True
            if not before:
                log.warning("records are lost, and requests answered all the same: %s", self.last_error)

    def rest(self) -> None:
        """End a segment that is old, as the next record would: for who may have none for weeks."""
        with self._lock:
            if time.monotonic() - self._begun > self._segment_s:
                self._end()

    def close(self) -> None:
        """End the segment; the next record would begin another."""
        with self._lock:
            self._end()

    def _packed(self, record: dict[str, Any]) -> bytes:
        if not isinstance(record, dict):
            raise TypeError(f"a record is a dict, not {type(record).__name__}")
        packed: bytes = self._pack(record)
        if len(packed) > MOST_BYTES:
            packed = self._pack({**record, "inputs": None, "outputs": None, "cut": True})
            if len(packed) > MOST_BYTES:
                raise ValueError(f"a record of {len(packed):,} bytes; the limit is {MOST_BYTES:,}")
        return packed

    def _append(self, frame: bytes) -> None:
        now = time.monotonic()
        if self._descriptor < 0 or self._size + len(frame) > self._segment_bytes or now > self._look_at:
            self._look(len(frame), now)
        try:
            done = os.write(self._descriptor, frame)
        except OSError:
            self._cut()
            raise
        if done < len(frame):  # the disk is full
            self._cut()
            raise OSError("the disk is full")
        self._size += done

    def _cut(self) -> None:
        """Take half a record away again; where even that fails, its reader knows it by its checksum."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._end()

    def _look(self, coming: int, now: float) -> None:
        """See that there is a segment with room for what comes, and that nobody has removed it."""
        if self._descriptor >= 0:
            full = self._size and self._size + coming > self._segment_bytes
            if full or now - self._begun > self._segment_s or not os.fstat(self._descriptor).st_nlink:
                self._end()
        elif now < self._look_at:
            raise OSError(self.last_error.partition(": ")[2] or "there is no segment")
        self._look_at = now + _LOOK_S
        if self._descriptor < 0:
            self._begin()

    def _begin(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (used := sum(_size(path) for path in segments(self.folder))) + self._segment_bytes > self._limit_bytes:
            raise OSError(f"the spool is full: {used:,} of {self._limit_bytes:,} bytes")
        disk = os.statvfs(self.folder)
        if (free := disk.f_bavail * disk.f_frsize) < self._free_bytes:
            raise OSError(f"the disk is full: {free:,} bytes are left, and {self._free_bytes:,} are for others")
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
        hidden, path = self.folder / f".{name}", self.folder / name
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(hidden, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # before it can be seen: who sees it without takes it for complete
            hidden.rename(path)
        except OSError:
            os.close(descriptor)
            hidden.unlink(missing_ok=True)
            raise
        self._descriptor, self._size, self._path, self._begun = descriptor, 0, path, time.monotonic()

    def _end(self) -> None:
        if self._descriptor >= 0:
            with suppress(OSError):
                if not self._size:
                    self._path.unlink(missing_ok=True)
                os.close(self._descriptor)
            self._descriptor = -1

    def _forked(self) -> None:
        """Leave the segment to the parent: its lock must end with it."""
        self._lock = threading.Lock()
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
        self._descriptor, self._look_at, self.written, self.lost, self.last_error = -1, 0.0, 0, 0, ""


def segments(folder: Path) -> Iterator[Path]:
    """Yield the segments of a spool, the oldest first."""
    with suppress(FileNotFoundError):
        yield from sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # written meanwhile
        return 0


_spools: "weakref.WeakSet[Spool]" = weakref.WeakSet()


def _after_fork() -> None:
    for spool in list(_spools):
        spool._forked()


os.register_at_fork(after_in_child=_after_fork)
