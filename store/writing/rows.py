"""Records to rows: what the tables can hold, or a reason why not."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgpack  # type: ignore[import-untyped]  # has no types
from sqlalchemy import JSON, BigInteger, Column, Double, Integer, SmallInteger, String, Table

from store import schema

TABLES: dict[str, Table] = {
    kind: table.__table__  # type: ignore[misc]  # typed as any FROM clause
    for kind, table in {
        "prediction": schema.Prediction,
        "label": schema.Label,
        "event": schema.Event,
        "usage": schema.Usage,
        "release": schema.Release,
    }.items()
}
_BITS = {SmallInteger: 15, Integer: 31, BigInteger: 63}
_DEPTH = 32  # of what is kept as JSON


class RefusedError(Exception):
    """A record that no table can hold, and why."""


@dataclass(frozen=True)
class Row:
    """A record for a table.

    Attributes:
        subjects: Hashes of what it is about: erased ones are not written.
        time: When it came, in nanoseconds since 1970: what a caller says of its labels and events is no such time.
    """

    kind: str
    values: dict[str, Any]
    subjects: tuple[str, ...]
    time: int


def row_of(packed: bytes) -> Row:
    """Return the row of a record.

    Raises:
        RefusedError: it is none that the store knows, or something in it cannot be stored.
    """
    try:
        record = msgpack.unpackb(packed)
    except Exception as error:  # msgpack raises many kinds
        raise RefusedError(f"it cannot be unpacked: {error}") from error
    if not isinstance(record, dict):
        raise RefusedError("it is no record")
    kind = record.get("kind", "prediction")
    if kind not in TABLES:
        raise RefusedError(f"there is no kind {kind!r}")
    time = _number(record.get("time"), 63, "time")
    values = {c.name: _value(c, _given(record, kind, c.name)) for c in TABLES[kind].columns}
    request = values["id"] if kind == "prediction" else values.get("request")
    subjects = [subject(what, name) for what, name in (("request", request), ("key", values.get("key"))) if name]
    return Row(kind, values, tuple(subjects), values.get("received", time))


def subject(what: str, name: str) -> str:
    """Return the hash by which an erasure knows a "request" or a "key"."""
    return hashlib.sha256(f"{what}:{name}".encode()).hexdigest()


def day_of(time: int) -> str:
    """Return the day, UTC, of a time in nanoseconds since 1970, as in 2026-11-30."""
    return datetime.fromtimestamp(time // 1_000_000_000, UTC).date().isoformat()


def _given(record: dict[str, Any], kind: str, name: str) -> Any:
    value = record.get(name)
    if value is None:
        default = _DEFAULTS.get((kind, name)) or _DEFAULTS.get((None, name))
        return default(record) if default else None
    return value


_DEFAULTS: dict[tuple[str | None, str], Callable[[dict[str, Any]], Any]] = {
    (None, "arm"): lambda record: "",
    ("label", "name"): lambda record: "label",
    (None, "received"): lambda record: record["time"],
    ("usage", "key"): lambda record: "",
    ("usage", "day"): lambda record: day_of(record["time"]),
    ("usage", "failed"): lambda record: 0,
    ("release", "first_seen"): lambda record: record["time"],
}


def _value(column: Column[Any], value: Any) -> Any:
    if value is None:
        if not column.nullable:
            raise RefusedError(f"it has no {column.name}")
        return None
    kind = column.type
    if isinstance(kind, JSON):
        return _plain(value, column.name, _DEPTH)
    if isinstance(kind, String):
        return _text(value, kind.length or 0, column.name)
    if isinstance(kind, Double):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RefusedError(f"{column.name} is no number: {value!r:.80}")
        return float(value)
    return _number(value, next(bits for of, bits in _BITS.items() if type(kind) is of), column.name)


def _text(value: Any, most: int, name: str) -> str:
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        raise RefusedError(f"{name} is no text of up to {most} characters: {value!r:.80}")
    return value


def _number(value: Any, bits: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 << bits <= value < 1 << bits:
        raise RefusedError(f"{name} is no whole number of {bits + 1} bits: {value!r:.80}")
    return value


def _plain(value: Any, name: str, depth: int) -> Any:
    """Return what both databases hold as JSON: NaN and infinities by name, no NUL, and of bytes their number."""
    if not depth:
        raise RefusedError(f"{name} is nested more than {_DEPTH} deep")
    if isinstance(value, dict):
        return {_plain(str(key), name, depth): _plain(each, name, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, name, depth - 1) for each in value]
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if value is None or isinstance(value, bool | int | float):
        return value
    raise RefusedError(f"{name} holds a {type(value).__name__}")
