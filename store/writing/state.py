"""What the process that writes says of itself, in a file beside the segments; what waits in a spool."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from contracts.files import whole
from contracts.files.locks import locked
from store.errors import SpoolError
from store.spool import segments

_STATE, _LOCK = "writer.json", "writer.lock"


@dataclass
class State:
    """What a writer has done in all its lives; times are nanoseconds since 1970.

    Attributes:
        duplicates: Records that were there already, by their id.
        refused: Records that no table can hold; they are in refused.jsonl.
        damaged: Places in segments that are no records.
        erased: Records of what was erased before they were written.
        waiting: Why it waits for the database, since `waiting_since`; "" if it does not.
    """

    pid: int = 0
    written: int = 0
    duplicates: int = 0
    refused: int = 0
    damaged: int = 0
    erased: int = 0
    last_written: int = 0
    waiting: str = ""
    waiting_since: int = 0
    payloads_waiting: str = ""


@dataclass
class Backlog:
    """What waits in a spool: segments, bytes that no database has yet, and the age of the oldest, in seconds."""

    segments: int = 0
    waiting_bytes: int = 0
    oldest_s: float = 0.0
    places: dict[str, int] = field(default_factory=dict, repr=False)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the one process that writes from a spool.

    Raises:
        SpoolError: another is.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with locked(folder / _LOCK, wait=False):
            yield
    except BlockingIOError:
        raise SpoolError(
            f"another process writes from {folder}", note=f"its id is {read(folder).pid}", hint="one is enough: stop it"
        ) from None


def is_written(folder: Path) -> bool:
    """Tell whether a process writes from a spool at this moment."""
    try:
        with locked(folder / _LOCK, wait=False):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def read(folder: Path) -> State:
    """Return what the last writer said; a state of its own beginnings where there was none."""
    try:
        found = json.loads((folder / _STATE).read_text())
        known = {each.name for each in fields(State)}
        return State(**{name: value for name, value in found.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return State()


def write(folder: Path, state: State) -> None:
    """Say it."""
    whole.write(folder / _STATE, json.dumps(asdict(state)), mode=0o600)


def backlog(folder: Path, places: dict[str, int]) -> Backlog:
    """Return what waits in a spool.

    Args:
        places: How far each segment is written, as the database says.
    """
    found = Backlog(places=places)
    for path in segments(folder):
        try:
            waiting = path.stat().st_size - places.get(path.name, 0)
        except FileNotFoundError:
            continue
        found.segments += 1
        if waiting > 0:
            found.waiting_bytes += waiting
            found.oldest_s = max(found.oldest_s, time.time() - begun(path))
    return found


def begun(path: Path) -> float:
    """Return when a segment was begun, in seconds since 1970: its name says it."""
    number = path.name.partition("-")[0]
    return int(number) / 1e9 if number.isdecimal() else time.time()


def here(state: State) -> State:
    """Take over: from now on it is this process that writes."""
    state.pid, state.waiting, state.waiting_since = os.getpid(), "", 0
    return state
