"""The server's log: what tritonserver and its workers print, one JSON object a line, in files of limited size.

  {"time": "2026-11-23T17:30:03.951898Z", "level": "error", "message": "…", "source": "pb_stub.cc:714",
   "process": 22477, "model": "MODEL", "request_id": "…"}

The last four only where the line tells. Triton escapes what it logs (TRITON_SERVER_ESCAPE_LOG_MESSAGES), so that no
client forges a line with a newline in its request id. A table is one record, any other line without Triton's
prefix (a model's print) is one of level info.
"""

import functools
import json
import logging
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from itertools import chain
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

from rich.text import Text

from cli.tables import Console

_FILE_BYTES = 16 * 1024 * 1024
_OLDER_FILES = 4  # triton.jsonl.1 is the newest of them
_LINE_BYTES = 64 * 1024  # what is longer is cut into records of that size
_LOOK_EVERY_S = 0.2

_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "fatal"}
_BAD = ("error", "fatal")
_STYLES = {"warning": "yellow", "error": "red", "fatal": "bold red"}
# I1123 17:24:16.029600 14883 python_be.cc:2249] "message"
_PREFIXED = re.compile(
    r"(?P<level>[IWEF])(?P<time>\d{4} \d\d:\d\d:\d\d\.\d{6})(?P<grpc>\d{3})? +(?P<process>\d+) "
    r"(?P<source>[^\s\]]+:\d+)\]\s*(?P<message>.*)"
)
_QUOTED = json.JSONDecoder()  # Triton escapes as JSON does
# [Warning] File: /…/batch_span_processor.cc:55 message
_TRACERS = re.compile(r"\[(?P<level>[IWE])[a-z]+\] File: \S*/(?P<source>[^\s/]+:\d+) (?P<message>.*)")
_CRASH = re.compile(r"Signal \((?!2\)|15\))\d+\) received|terminate called ")
_SPAN_DROPPED = "BatchSpanProcessor queue is full - dropping span."
_SPAN_DROPPED_EVERY_S = 60
_REQUEST_ID = re.compile(r"\[request id: (.*?)\](?: |$)", re.DOTALL)
_NO_ID = "<id_unknown>"
_MODEL = re.compile(
    r"loading: (?P<loading>.+):\d+$"
    r"|(?:^successfully (?:un)?loaded|^failed to load) '(?P<loaded>[^']+)'"
    r"|(?:Initialize: |for model '|[Ss]tub process ')(?P<instance>.+?)_\d+_\d+\b"
)


def record(stream: IO[bytes], path: Path, hear: Callable[[Mapping[str, Any]], object] = lambda entry: None) -> None:
    """Write down what a server prints, until it has ended.

    Whatever happens to the file: a server whose output nobody reads stops at its next line.

    Args:
        hear: Told each record. Any of the server's workers may have written it, whatever it says.
    """
    lines = iter(functools.partial(stream.readline, _LINE_BYTES), b"")
    said_at = -math.inf
    for entry in _entries(line.decode(errors="replace").rstrip() for line in lines):
        if entry["message"] == _SPAN_DROPPED:  # thousands a second, once there are more than it can send
            if time.monotonic() - said_at < _SPAN_DROPPED_EVERY_S:
                continue
            said_at = time.monotonic()
        _file(path).write(entry)
        hear(entry)


def write(path: Path, level: str, message: str) -> None:
    """Write down a message of our own among the server's."""
    _file(path).write({"time": _stamp(datetime.now(UTC)), "level": level, "message": message})


def last_errors(path: Path, count: int, since: float = 0) -> str:
    """Return the last errors, or without any the last lines, for the note of an error.

    Args:
        since: Seconds since the epoch, as a process's start time: the log goes on from server to server.
    """
    found = _since(path, since)
    errors = [entry for entry in found if entry["level"] in _BAD] or found
    return "\n  ".join(_short(entry) for entry in errors[-count:])


def last_error_about(path: Path, model: str, since: float) -> str | None:
    """Return the last error since then that names a model: why one cannot even be begun, Triton says there alone."""
    named = re.compile(rf"(?<![\w.-]){re.escape(model)}(?![\w-])")
    errors = [entry for entry in _since(path, since) if entry["level"] in _BAD and named.search(entry["message"])]
    return _short(errors[-1]) if errors else None


def show(path: Path, lines: int, *, follow: bool, as_json: bool, alive: Callable[[], bool]) -> None:
    """Print the last `lines` records and, with `follow`, what comes until the server is no longer `alive`."""
    console = Console()
    with path.open(errors="replace") as log:
        kept = _tail(path, log, lines)
        for line, entry in _parsed(chain(kept, _growth(path, log, alive) if follow else [])):
            if as_json:
                print(line, end="", flush=True)
            else:
                console.print(_for_people(entry), soft_wrap=True)


class _LogFile(RotatingFileHandler):
    """The log on disk, whose files are of limited size, and which nobody else writes, whatever the umask."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.fdopen(os.open(self.baseFilename, flags, 0o644), "a", encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        """Append a record."""
        self.handle(logging.makeLogRecord({"msg": json.dumps(entry)}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Do nothing: a full disk costs records, not the server."""


@functools.cache  # one for all threads: two would rotate each other's file away
def _file(path: Path) -> _LogFile:
    return _LogFile(path, maxBytes=_FILE_BYTES, backupCount=_OLDER_FILES, delay=True)


def _entries(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    table: dict[str, Any] | None = None
    for line in lines:
        if table is not None and line.startswith(("+", "|")):
            table["message"] += f"\n{line}"
            continue
        if table is not None:
            yield table
            table = None
        entry, rest = _entry(line)
        if not entry["message"]:
            table = entry if "source" in entry else None  # Triton's table begins on the next line
        else:
            yield entry
        if rest:
            yield _foreign_entry(rest, datetime.now(UTC))
    if table is not None:
        yield table


def _entry(line: str) -> tuple[dict[str, Any], str]:
    """Read a line; return also what a model printed between Triton's message and its end of line, written apart."""
    now = datetime.now(UTC)
    if (found := _PREFIXED.fullmatch(line)) is None:
        return _foreign_entry(line, now), ""
    message, rest = _unescaped(found["message"])
    entry = {
        "time": _stamp(now if found["grpc"] else _time(found["time"], now)),  # gRPC's own lines are in local time
        "level": _LEVELS[found["level"]],
        "message": message,
        "source": found["source"],
        "process": int(found["process"]),
    }
    if (model := _MODEL.search(message)) is not None:
        entry["model"] = model[model.lastgroup or 0]
    if (request := _REQUEST_ID.search(message)) is not None and request[1] != _NO_ID:
        entry["request_id"] = request[1]
    return entry, rest


def _foreign_entry(line: str, now: datetime) -> dict[str, Any]:
    """Read a line without Triton's prefix."""
    if (found := _TRACERS.fullmatch(line)) is None:
        return {"time": _stamp(now), "level": "fatal" if _CRASH.match(line) else "info", "message": line}
    level, message = _LEVELS[found["level"]], found["message"]
    return {"time": _stamp(now), "level": level, "message": message, "source": found["source"]}


def _unescaped(message: str) -> tuple[str, str]:
    if message.startswith('"'):
        with suppress(ValueError):
            text, end = _QUOTED.raw_decode(message)
            return text.rstrip(), message[end:]
    return message, ""


def _time(stamp: str, now: datetime) -> datetime:
    """Read Triton's time, which is in UTC and without the year."""
    try:
        time = datetime.strptime(f"{now.year}{stamp}", "%Y%m%d %H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:  # a model printed what looks like Triton's prefix
        return now
    return time.replace(year=now.year - 1) if time > now + timedelta(days=1) else time


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _since(path: Path, since: float) -> list[dict[str, Any]]:
    """Return the newest records, from that time on at the earliest."""
    if not path.exists():
        return []
    stamp = _stamp(datetime.fromtimestamp(since, UTC))
    with path.open(errors="replace") as log:
        return [entry for _, entry in _parsed(_tail(path, log, 1000)) if entry["time"] >= stamp]


def _short(entry: Mapping[str, Any]) -> str:
    return _harmless(entry["message"].partition("\n\nAt:")[0])


def _tail(path: Path, log: IO[str], count: int) -> list[str]:
    """Return the last lines of `log`, which is at its beginning, and of the older files if it has not enough."""
    lines = list(deque(log, maxlen=count))
    for number in range(1, _OLDER_FILES + 1):
        with suppress(FileNotFoundError), path.with_name(f"{path.name}.{number}").open(errors="replace") as older:
            lines[:0] = deque(older, maxlen=count - len(lines))
    return lines


def _growth(path: Path, log: IO[str], alive: Callable[[], bool]) -> Iterator[str]:
    """Yield what is appended to `log`, and to the files that take its place."""
    while True:
        ended, moved = not alive(), _moved(path, log)  # asked first: what was written until then is still read
        yield from log
        if moved:
            log = path.open(errors="replace")
        elif ended:
            return
        else:
            time.sleep(_LOOK_EVERY_S)


def _moved(path: Path, log: IO[str]) -> bool:
    with suppress(FileNotFoundError):  # just now
        return not os.path.samestat(path.stat(), os.fstat(log.fileno()))
    return False


def _parsed(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in lines:
        with suppress(ValueError):  # cut short when the disk was full
            yield line, json.loads(line)


def _for_people(entry: dict[str, Any]) -> Text:
    local = datetime.fromisoformat(entry["time"]).astimezone()
    first, *more = _harmless(entry["message"]).split("\n")
    return Text.assemble(
        (f"{local:%m-%d %H:%M:%S}.{local.microsecond // 1000:03}  ", "dim"),
        (f"{entry['level']:<7}  ", _STYLES.get(entry["level"], "")),
        "\n    ".join([first, *more]),  # indented: no message looks like two
    )


def _harmless(text: str) -> str:
    """Escape what would move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
