"""From what callers know to what a model takes: rows of entities, filled from a source by a declaration."""

import difflib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.entities import given, records
from contracts.entities.declaration import TEXT, Declaration, Entity, Fill, Lookup
from contracts.entities.tables import Columns, Found, Source
from contracts.errors import EntityError
from contracts.samples import Batch

Row = Mapping[str, object]  # {entity: what a caller gives}; None and "" are not given


@dataclass(frozen=True, eq=False)
class Filled:
    """The inputs of a model for B rows.

    Attributes:
        inputs: {input: [B, 1]}; text as str, in arrays of objects.
        defaults: For each row the names of what is not known, so that a declared default is sent.
        instead: For each row the tables whose row is not from where it was to come from, and why: {"tides": "stale"}.
    """

    model: str
    inputs: Mapping[str, NDArray[Any]]
    defaults: tuple[tuple[str, ...], ...]
    instead: tuple[Mapping[str, str], ...] = ()

    @property
    def records(self) -> Batch:
        """The same as the input `records`, for a model that takes those: less to send, and sooner answered."""
        return records.of_columns(self.inputs)


@dataclass(frozen=True, eq=False)
class Question:
    """What is looked up for B rows: the keys, {column of the key: [B]}, and the times as of which, [B]."""

    lookup: Lookup
    keys: Columns
    at: NDArray[np.int64] | None


Steps = Generator[tuple[Question, ...], Sequence[Found], Filled]


@dataclass(frozen=True, eq=False)
class _Column:
    """An entity or a fill of all rows."""

    values: NDArray[Any]  # [B]; of a time UTC seconds since 1970
    known: NDArray[np.bool_]  # [B]; what is not known finds nothing
    is_default: NDArray[np.bool_]  # [B]
    sent: NDArray[Any] | None = None  # [B], where that is not the values: the text of a time


def fill(declaration: Declaration, rows: Sequence[Row], source: Source) -> Filled:
    """Make the inputs of a model.

    Raises:
        EntityError: a row lacks an entity or has one that is none, or nothing is known of it and no default is
            declared.
    """
    asking = steps(declaration, rows)
    try:
        questions = next(asking)
        while True:
            questions = asking.send([source.find(asked.lookup, asked.keys, asked.at) for asked in questions])
    except StopIteration as done:
        filled: Filled = done.value
        return filled


def steps(declaration: Declaration, rows: Sequence[Row]) -> Steps:
    """Make the inputs of a model step by step: yields what can be asked at once, and is sent what was found.

    Raises:
        EntityError: as `fill`.
    """
    if not rows:
        raise EntityError("there is nothing to fill: no rows")
    for number, row in enumerate(rows):
        _check_names(declaration, row, _where(number, rows))
    columns = {entity.name: _given(entity, rows) for entity in declaration.entities}
    instead: list[dict[str, str]] = [{} for _ in rows]
    pending = [*declaration.lookups]
    while pending:
        now = [lookup for lookup in pending if all(name in columns for name in lookup.key.values())]
        pending = [lookup for lookup in pending if lookup not in now]
        found = yield tuple(_question(lookup, columns) for lookup in now)
        for lookup, rows_of in zip(now, found, strict=True):
            columns |= _looked_up(lookup, columns, rows_of, rows)
            for told, why in zip(instead, () if rows_of.instead is None else rows_of.instead, strict=False):
                told |= {lookup.table: str(why)} if why else {}
    inputs = {name: _input(columns[name], dtype) for name, dtype in declaration.inputs.items()}
    defaults = [tuple(name for name in inputs if columns[name].is_default[number]) for number in range(len(rows))]
    return Filled(declaration.model, inputs, tuple(defaults), tuple(instead))


def _question(lookup: Lookup, columns: Mapping[str, "_Column"]) -> Question:
    keys = {column: columns[name].values for column, name in lookup.key.items()}
    return Question(lookup, keys, columns[lookup.as_of.time].values if lookup.as_of else None)


def _where(number: int, rows: Sequence[Row]) -> str:
    """Say which row an error is about, if there are several."""
    return f"row {number + 1}: " if len(rows) > 1 else ""


def _check_names(declaration: Declaration, row: Row, where: str) -> None:
    names = [entity.name for entity in declaration.entities]
    if strange := [name for name in row if name not in names]:
        near = difflib.get_close_matches(str(strange[0]), names, n=1)
        raise EntityError(
            f"{where}{declaration.model} has no entity {strange[0]!r}",
            note=f"its entities: {', '.join(names)}",
            hint=f"is {near[0]} meant?" if near else None,
        )


def _given(entity: Entity, rows: Sequence[Row]) -> _Column:
    """Check what was given of an entity."""
    values, is_default = [], np.zeros(len(rows), bool)
    for number, row in enumerate(rows):
        raw = row.get(entity.name)
        if raw is None or raw == "":
            if entity.default is None:
                told = f" ({entity.about})" if entity.about else ""
                raise _of(EntityError(f"{_where(number, rows)}{entity.name}{told} is missing"), entity, number)
            raw, is_default[number] = entity.default, True
        try:
            values.append(given.value(entity, raw))
        except EntityError as error:
            raise _of(EntityError(f"{_where(number, rows)}{error}"), entity, number) from error
    known = np.ones(len(rows), bool)
    if entity.kind != "time":
        dtype = {"text": np.str_, "integer": np.int64, "number": np.float64}[entity.kind]
        return _Column(np.array(values, dtype), known, is_default)
    times = [value for value in values if isinstance(value, datetime)]  # all of them are
    seconds = np.array([int(time.astimezone(UTC).timestamp() // 1) for time in times], np.int64)
    texts = np.array([time.isoformat(timespec="seconds") for time in times])
    return _Column(seconds, known, is_default, texts if entity.dtype == TEXT else None)


def _of(error: EntityError, entity: Entity, row: int) -> EntityError:
    error.entity, error.row = entity.name, row
    return error


def _looked_up(lookup: Lookup, columns: Mapping[str, _Column], found: Found, rows: Sequence[Row]) -> dict[str, _Column]:
    """Return the fills of a lookup; what hangs on something unknown is unknown itself."""
    usable = np.all([np.ones(len(rows), bool), *(columns[name].known for name in lookup.key.values())], axis=0)
    made = {}
    for wanted in lookup.fills:
        values, known = np.asarray(found.values[wanted.name]), usable & found.known[wanted.name]
        if wanted.default is not None:
            default = wanted.default if wanted.dtype == TEXT else np.dtype(wanted.dtype).type(wanted.default)
            made[wanted.name] = _Column(np.where(known, values, default), np.ones(len(rows), bool), ~known)
            continue
        if wanted.sent and not known.all():
            raise _unknown(lookup, wanted, columns, int(np.flatnonzero(~known)[0]), rows)
        made[wanted.name] = _Column(values, known, np.zeros(len(rows), bool))
    return made


def _unknown(
    lookup: Lookup, wanted: Fill, columns: Mapping[str, _Column], number: int, rows: Sequence[Row]
) -> EntityError:
    of = [f"{name} {columns[name].values[number]}" for name in lookup.key.values() if columns[name].known[number]]
    if lookup.as_of is not None:
        of.append(f"{lookup.as_of.time} {rows[number].get(lookup.as_of.time)}")
    return EntityError(
        f"{_where(number, rows)}{wanted.name} is not known of {', '.join(of) or 'it'}",
        note=f"it is looked up in {lookup.table}, and no default is declared",
    )


def _input(column: _Column, dtype: str) -> NDArray[Any]:
    """Return a column as the model takes it, [B, 1]."""
    values = column.values if column.sent is None else column.sent
    if dtype == TEXT:
        return np.array([str(value) for value in values], np.object_)[:, None]
    return values.astype(dtype)[:, None]
