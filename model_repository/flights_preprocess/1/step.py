"""Flights as they are known at their scheduled departure to what the network takes, of the arrays of requests.

A request brings an input for each field of a flight, or `records` (records.py) alone; the answers are the same. The
vocabularies lie beside config.pbtxt, in vocabularies.json.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import features
import numpy as np
import records
from features import FeatureError as Refused
from numpy.typing import NDArray

CALLED = "the preprocessor"

_LOW, _HIGH = np.array([*features.RANGES.values()], np.float32).T  # [21] each

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Flights:
    """The flights of a request."""

    texts: Sequence[Sequence[str]]  # of each flight, in the order of records.TEXTS
    departures: Sequence[datetime]
    numbers: NDArray[np.floating]  # [N, 21], in the order of features.RANGES


class Step:
    """Knows the vocabularies."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Read the vocabularies."""
        self.vocabularies = features.read_vocabularies(folder / "vocabularies.json")

    def answer(self, requests: Sequence[Arrays]) -> list[Arrays | Exception]:
        """Return what each request gets: its outputs, or why it is refused."""
        read = [self._read(request) for request in requests]
        encoded = self._encoded([each for each in read if isinstance(each, _Flights)])
        return [next(encoded) if isinstance(each, _Flights) else each for each in read]

    def _read(self, request: Arrays) -> _Flights | Refused:
        try:
            _check_names(request)
            if records.NAME in request:
                return self._checked([*map(bytes, request[records.NAME].ravel())], records.read)
            numbers = np.concatenate([request[name] for name in features.RANGES], axis=1)
            texts = zip(*(request[name].ravel() for name in records.TEXTS), strict=True)
            return self._checked([*zip(texts, numbers, strict=True)], _decoded)
        except Refused as error:
            return error

    def _checked(self, rows: Sequence[Any], read: Any) -> _Flights:
        texts, departures, numbers = [], [], []
        for place, row in enumerate(rows):
            try:
                words, values = read(row)
                departures.append(features.read_departure(words[-1]))
                self._check_origin(words[1])
            except Refused as error:
                raise _of_row(error, place, len(rows)) from error
            texts.append(words)
            numbers.append(values)
        return _Flights(texts, departures, np.array(numbers))

    def _encoded(self, requests: Sequence[_Flights]) -> Iterator[Arrays | Exception]:
        """Yield the outputs of each request, or why it is refused; all are encoded at once."""
        if not requests:
            return
        with np.errstate(over="ignore"):  # what no float32 holds is infinite, and out of its range
            numbers = np.concatenate([each.numbers for each in requests]).astype(np.float32)
        texts = zip(*(words for each in requests for words in each.texts), strict=True)
        categories, columns = features.encode(
            dict(zip(features.CATEGORIES, texts, strict=False)),  # behind them is the departure
            [at for each in requests for at in each.departures],
            dict(zip(features.RANGES, numbers.T, strict=True)),
            self.vocabularies,
        )
        strange = (numbers < _LOW) | (numbers > _HIGH)  # NaN is neither
        any_strange, end = bool(strange.any()), 0
        for each in requests:
            start, end = end, end + len(each.departures)
            if any_strange and strange[start:end].any():
                yield _out_of_range(each.numbers, strange[start:end])
            else:
                yield {"categories": categories[start:end], "numbers": columns[start:end]}

    def _check_origin(self, origin: str) -> None:
        """Refuse an airport that no flight of the data left from: of its weather and delays nothing is known."""
        if origin not in (known := self.vocabularies["origin"]):
            raise Refused(f"origin is {features.shown(origin)}; flights leave from {', '.join(known)}")


def _check_names(request: Arrays) -> None:
    """Refuse a request that brings both, neither, or some of the fields alone."""
    given = [name for name in records.FIELDS if name in request]
    expected = f"expected {records.NAME} alone, or all {len(records.FIELDS)} inputs of a flight without it"
    if records.NAME in request:
        if given:
            raise Refused(f"{records.NAME} and {records.listed(given)} are given; {expected}")
    elif len(given) < len(records.FIELDS):
        missing = [name for name in records.FIELDS if name not in request]
        found = f"{records.listed(missing)} missing" if given else f"neither {records.NAME} nor a field is given"
        raise Refused(f"{found}; {expected}")


def _decoded(row: tuple[Sequence[bytes], NDArray[Any]]) -> tuple[Sequence[str], NDArray[Any]]:
    texts, numbers = row
    return [features.read_text(name, text) for name, text in zip(records.TEXTS, texts, strict=True)], numbers


def _out_of_range(numbers: NDArray[np.floating], strange: NDArray[np.bool_]) -> Refused:
    place, column = np.argwhere(strange)[0].tolist()
    try:
        features.check_number([*features.RANGES][column], float(numbers[place, column]))
    except Refused as error:
        return _of_row(error, place, len(numbers))
    raise AssertionError("a number is out of its range, and it is not")


def _of_row(error: Refused, place: int, count: int) -> Refused:
    return error if count == 1 else Refused(f"flight {place} of {count}, from 0: {error}")
