"""Tables that the rest of a model's inputs is looked up in, by a declaration.

A table is columns of one length, {column: [n]}: floats, where NaN is a missing value; integers; text, where "" is one.
Its times are integers, UTC seconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.entities.declaration import TEXT, Declaration, Fill, Lookup
from contracts.errors import SpecError

Columns = Mapping[str, NDArray[Any]]

_MOST_KEYS = 1 << 62  # that can be told apart: products of the numbers of distinct values


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for n keys: the values of each fill, [n], and which of them are known; the others say nothing.

    Attributes:
        instead: Why a row is not from where it was to come from, [n], "" where it is; None: nobody said so.
    """

    values: Mapping[str, NDArray[Any]]
    known: Mapping[str, NDArray[np.bool_]]
    instead: NDArray[np.str_] | None = None


def nothing(lookup: Lookup, rows: int) -> Found:
    """Return what is found for so many keys where there is nothing."""
    kinds = {fill.name: "U1" if fill.dtype == TEXT else fill.dtype for fill in lookup.fills}
    return Found(
        {name: np.zeros(rows, kind) for name, kind in kinds.items()},
        {name: np.zeros(rows, bool) for name in kinds},
    )


class Source(Protocol):
    """Where the rest of a model's inputs is looked up: the tables of a release, or a server of features."""

    def find(self, lookup: Lookup, keys: Columns, at: NDArray[np.int64] | None) -> Found:
        """Find the fills of a lookup for n requests at once.

        Args:
            keys: {column of the key: [n]}, text or int64.
            at: The times as of which, UTC seconds since 1970, [n]; None of a lookup that has none.
        """


class Tables:
    """A Source that holds the tables which a declaration names.

    One that a release does not keep may be given, too; else nothing is known of it.

    Raises:
        SpecError: a table or a column is missing or of another type, or two rows have the same key.
    """

    def __init__(self, declaration: Declaration, tables: Mapping[str, Columns]) -> None:
        if missing := [name for name in declaration.tables if name not in tables]:
            raise SpecError(f"there is no table {', '.join(missing)}", note=f"there are: {', '.join(tables) or 'none'}")
        # By the name of a fill, which no other lookup has.
        self._indices = {
            found.fills[0].name: _Index(found, tables[found.table])
            for found in declaration.lookups
            if found.table in tables
        }

    def find(self, lookup: Lookup, keys: Columns, at: NDArray[np.int64] | None) -> Found:
        """Do as `Source.find` says."""
        index = self._indices.get(lookup.fills[0].name)
        if index is None:
            return nothing(lookup, len(next(iter(keys.values()), () if at is None else at)))
        return index.find(keys, at)

    def keys(self, lookup: Lookup) -> Columns:
        """Return the keys of a lookup that have a row, {column: [n]}; empty where there is no such table."""
        index = self._indices.get(lookup.fills[0].name)
        return {} if index is None else index.keys()


class _Index:
    """A table, sorted by the key of a lookup and, within it, by time."""

    def __init__(self, lookup: Lookup, columns: Columns) -> None:
        rows = _checked(lookup, columns)
        self._lookup = lookup
        self._fills = {fill.name: _values(lookup.table, fill, columns[fill.column]) for fill in lookup.fills}
        own = [_comparable(columns[column]) for column in lookup.key]
        time = columns[lookup.as_of.column].astype(np.int64) if lookup.as_of else np.zeros(rows, np.int64)
        self._levels, self._times = [np.unique(values) for values in own], np.unique(time)
        distinct = [len(level) for level in (*self._levels, self._times)]
        if np.prod(distinct, dtype=np.float64) >= _MOST_KEYS:
            raise SpecError(f"{lookup.table} has too many different keys", note=f"{distinct} values a column")
        key, _ = self._numbered(own, rows)
        place = key * len(self._times) + np.searchsorted(self._times, time)
        self._order = np.argsort(place, kind="stable")
        self._places, self._row_times = place[self._order], time[self._order]
        if (twice := np.flatnonzero(self._places[1:] == self._places[:-1])).size:
            row = self._order[twice[0]]
            named = [*lookup.key, *([lookup.as_of.column] if lookup.as_of else ())]
            told = ", ".join(f"{column} {columns[column][row]}" for column in named)
            raise SpecError(f"{lookup.table} has two rows of {told}")

    def find(self, keys: Columns, at: NDArray[np.int64] | None) -> Found:
        """Find the newest row of each key that counts."""
        as_of = self._lookup.as_of
        given = [_comparable(np.asarray(keys[column])) for column in self._lookup.key]
        key, known = self._numbered(given, len(given[0] if given else at if at is not None else ()))
        newest: NDArray[Any] = np.zeros(len(key), np.int64)  # the place of the time among all
        if as_of is not None and at is not None:
            newest = np.searchsorted(self._times, at - as_of.lag_s, side="right") - 1
        place = np.searchsorted(self._places, key * len(self._times) + newest, side="right") - 1
        known &= (newest >= 0) & (place >= 0)
        known &= self._places[place] // len(self._times) == key  # of another key: this one has none so early
        if as_of is not None and as_of.most_age_s is not None and at is not None:
            known &= at - self._row_times[place] <= as_of.most_age_s
        rows = self._order[place]
        return Found(
            {name: values[rows] for name, (values, _) in self._fills.items()},
            {name: known & there[rows] for name, (_, there) in self._fills.items()},
        )

    def keys(self) -> Columns:
        """Return each key that has a row, {column: [n]}."""
        number, found = np.unique(self._places // len(self._times)), dict[str, NDArray[Any]]()
        for column, level in zip(reversed([*self._lookup.key]), reversed(self._levels), strict=True):
            found[column] = level[number % len(level)]
            number //= len(level)
        return found

    def _numbered(self, keys: list[NDArray[Any]], rows: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return one number for each key, [rows], and whether all of its parts are known."""
        number, known = np.zeros(rows, np.int64), np.ones(rows, bool)
        for level, values in zip(self._levels, keys, strict=True):
            place = np.minimum(np.searchsorted(level, values), len(level) - 1)
            known &= level[place] == values
            number = number * len(level) + place
        return number, known


def _checked(lookup: Lookup, columns: Columns) -> int:
    """Hold a table to what a lookup needs of it; return how many rows it has."""
    table, times = lookup.table, [lookup.as_of.column] if lookup.as_of else []
    needed = [*lookup.key, *times, *(fill.column for fill in lookup.fills)]
    if missing := [column for column in needed if column not in columns]:
        raise SpecError(f"the table {table} has no column {missing[0]!r}", note=f"it has {', '.join(columns)}")
    lengths = {values.shape for values in columns.values()}
    if len(lengths) != 1 or len(shape := lengths.pop()) != 1 or not shape[0]:
        raise SpecError(f"the columns of the table {table} have not all the same number of rows, 1 or more")
    for column in lookup.key:
        if columns[column].dtype.kind not in "Uiu":
            raise SpecError(f"the key {column!r} of {table} is {columns[column].dtype}, not text or an integer")
    if times and columns[times[0]].dtype.kind not in "iu":
        raise SpecError(f"the times of {table}, {times[0]!r}, are {columns[times[0]].dtype}, not integers")
    return int(shape[0])


def _comparable(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.int64) if values.dtype.kind in "iu" else values.astype(np.str_)


def _values(table: str, fill: Fill, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a column as the input of the model has it, and which of its values are there."""
    told = f"{fill.column!r} of the table {table} is {values.dtype}, and cannot be sent as {fill.dtype}"
    if (values.dtype.kind == "U") != (fill.dtype == TEXT) or values.dtype.kind not in "Uiuf":
        raise SpecError(told)
    if fill.dtype == TEXT:
        return values, values != ""
    there = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    given = np.where(there, values, np.zeros((), values.dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        cast = given.astype(fill.dtype)
    whole = np.dtype(fill.dtype).kind in "iu"
    if not (np.array_equal(cast, given) if whole else np.isfinite(cast).all()):
        raise SpecError(told, note="a value would be another one")
    return cast, there
