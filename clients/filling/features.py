"""What a server of features is asked, and what of its answer is believed. No I/O: feature_server.py has that.

It is Feast's feature server, over plain HTTP: JSON in and out, each value with its event time. An online store has one
row of a key, the newest that was written, whatever the moment that somebody asks about. So a row counts only if it was
known by then, and is no older than the release declares; training has joined by the same two limits.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from contracts.entities.declaration import INTEGERS, TEXT, Fill
from contracts.entities.filling import Question
from contracts.entities.tables import Found, Source

PATH = "/get-online-features"
# Why a row is not the feature server's: it has none of the key; its newest is older than declared, or was known only
# after the moment that is asked about; nobody answered, or what is no answer.
Why = Literal["", "unknown", "stale", "future", "unanswered"]


@dataclass(frozen=True)
class Asked:
    """Questions that one request can hold: where they have a join key in common, it is the same."""

    questions: tuple[Question, ...]

    @property
    def body(self) -> bytes:
        """The request, JSON."""
        names = [f"{asked.lookup.view}:{fill.column}" for asked in self.questions for fill in asked.lookup.fills]
        keys = {column: values.tolist() for asked in self.questions for column, values in asked.keys.items()}
        return json.dumps({"features": names, "entities": keys, "full_feature_names": True}).encode()


def requests(questions: Sequence[Question]) -> tuple[Asked, ...]:
    """Divide questions into as few requests as may be."""
    found: list[list[Question]] = []
    for question in questions:
        for group in found:
            if all(_agree(question, other) for other in group):
                group.append(question)
                break
        else:
            found.append([question])
    return tuple(Asked(tuple(group)) for group in found)


def answered(asked: Asked, content: bytes) -> list[Found]:
    """Read a response; each row says why it does not count, where it does not.

    Raises:
        ValueError: it is not what Feast's feature server answers.
    """
    try:
        told = json.loads(content)
        columns = dict(zip(told["metadata"]["feature_names"], told["results"], strict=True))
        return [_found(question, columns) for question in asked.questions]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"no answer of a feature server: {type(error).__name__}: {error}") from error


def unanswered(question: Question) -> Found:
    """Return what is known where there was no answer."""
    return _nothing(question, "unanswered")


def else_from(source: Source, question: Question, found: Found) -> Found:
    """Take from the release's own table, where it has one, the rows that do not count."""
    assert found.instead is not None
    missing = np.flatnonzero(found.instead != "")
    if not question.lookup.kept or not len(missing):
        return found
    at = None if question.at is None else question.at[missing]
    own = source.find(question.lookup, {column: keys[missing] for column, keys in question.keys.items()}, at)
    values, known = ({name: column.copy() for name, column in part.items()} for part in (found.values, found.known))
    for name in values:
        values[name][missing], known[name][missing] = own.values[name], own.known[name]
    return Found(values, known, found.instead)


def counted(questions: Iterable[Question], found: Iterable[Found]) -> Counter[tuple[str, str]]:
    """Count rows by view, and by why they do not count: "" are those that do."""
    counts: Counter[tuple[str, str]] = Counter()
    for question, rows in zip(questions, found, strict=True):
        if rows.instead is not None:
            counts.update((question.lookup.view, str(why)) for why in rows.instead)
    return counts


def _agree(one: Question, other: Question) -> bool:
    common = one.keys.keys() & other.keys.keys()
    return all(np.array_equal(one.keys[column], other.keys[column]) for column in common)


def _rows(question: Question) -> int:
    return len(next(iter(question.keys.values())))


def _nothing(question: Question, why: Why) -> Found:
    rows = _rows(question)
    kinds = {fill.name: np.object_ if fill.dtype == TEXT else np.dtype(fill.dtype) for fill in question.lookup.fills}
    return Found(
        {name: np.zeros(rows, kind) for name, kind in kinds.items()},
        {name: np.zeros(rows, bool) for name in kinds},
        np.full(rows, why, dtype="U10"),
    )


def _found(question: Question, columns: dict[str, Any]) -> Found:
    """Judge the rows of a view, and read their values."""
    found, lookup = _nothing(question, ""), question.lookup
    answers = {fill.name: columns[f"{lookup.view}__{fill.column}"] for fill in lookup.fills}
    for part in (values for answer in answers.values() for values in (answer["values"], answer["event_timestamps"])):
        if len(part) != _rows(question):
            raise ValueError(f"{len(part)} values for {_rows(question)} rows")
    assert found.instead is not None and question.at is not None and lookup.as_of is not None
    most_age_s = math.inf if lookup.as_of.most_age_s is None else lookup.as_of.most_age_s - lookup.as_of.lag_s
    for row, times in enumerate(zip(*(answer["event_timestamps"] for answer in answers.values()), strict=True)):
        found.instead[row] = _why({_seconds(time) for time in times}, float(question.at[row]), most_age_s)
        if found.instead[row]:
            continue
        for fill in lookup.fills:
            value = _value(fill, answers[fill.name]["values"][row])
            if value is not None:
                found.values[fill.name][row], found.known[fill.name][row] = value, True
    return found


def _why(times: set[float], at: float, most_age_s: float) -> Why:
    """Say why a row does not count; its features were written together, and have one event time."""
    known = max(times)
    if known <= 0:
        return "unknown"
    if known > at:
        return "future"
    return "stale" if at - min(times) > most_age_s else ""


def _seconds(text: str) -> float:
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _value(fill: Fill, raw: Any) -> Any:
    """Return a value as the input has it; None where there is none, and what would be another one is an error."""
    if raw is None or raw in ("", "NaN"):
        return None
    if fill.dtype == TEXT:
        if not isinstance(raw, str):
            raise ValueError(f"{fill.column} is {raw!r}, not a text")
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError(f"{fill.column} is {raw!r}, not a number")
    if fill.dtype in INTEGERS:
        limits = np.iinfo(fill.dtype)
        if raw != int(raw) or not limits.min <= raw <= limits.max:
            raise ValueError(f"{fill.column} is {raw!r}, which no {fill.dtype} is")
        return int(raw)
    if not abs(raw) <= float(np.finfo(fill.dtype).max):
        raise ValueError(f"{fill.column} is {raw!r}, which no {fill.dtype} is")
    return float(raw)


def told(counts: Counter[tuple[str, str]]) -> Iterator[str]:
    """Say for each view how many rows were its own, and how many were not, and why."""
    for view in dict.fromkeys(view for view, _ in counts):
        own = counts[view, ""]
        others = [f"{count:,} {why}" for (name, why), count in sorted(counts.items()) if name == view and why]
        yield f"{view} {own:,}" + (f" ({', '.join(others)})" if others else "")
