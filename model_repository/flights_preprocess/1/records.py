"""Flights as JSON objects, one a row: what `records` brings in place of an input for each field.

    {"carrier": "UA", "origin": "EWR", "destination": "IAH", "departure": "2013-11-05T05:15", "duration": 227, …}

Each has all fields, by the names of the inputs; null is a number that is not known. It imports nothing but the standard
library, and features.py beside it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NoReturn

from features import CATEGORIES, RANGES, FeatureError, shown

NAME = "records"  # of the input
TEXTS = (*CATEGORIES, "departure")
FIELDS = (*TEXTS, *RANGES)
LONGEST_BYTES = 8192  # of a record: ten times what the longest real one takes

_NAMES = frozenset(FIELDS)
_SOME = 3  # names that an error lists
_texts, _numbers = itemgetter(*TEXTS), itemgetter(*RANGES)
_TEXT, _NUMBER = frozenset((str,)), frozenset((float, int, type(None)))
_KINDS = {str: "a text", bool: "a truth value", dict: "an object", list: "a list", type(None): "null"}


def read(record: bytes) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Read a flight: its texts, in the order of TEXTS, and its numbers, in that of RANGES, NaN where one is not known.

    Raises:
        FeatureError: it is no JSON object, or its fields are not those of a flight.
    """
    if len(record) > LONGEST_BYTES:
        raise FeatureError(f"{NAME}: {len(record):,} bytes, {LONGEST_BYTES:,} at most")
    fields = _parsed(record)
    if type(fields) is not dict:
        raise FeatureError(f"{NAME}: {_kind(fields)}, expected an object of {len(FIELDS)} fields")
    if fields.keys() != _NAMES:
        raise FeatureError(_other_names(fields))
    texts, numbers = _texts(fields), _numbers(fields)
    kinds = {*map(type, numbers)}
    if not (kinds <= _NUMBER and _TEXT.issuperset(map(type, texts))):
        raise FeatureError(_other_kind(fields))
    if not all(map(str.isascii, texts)):
        _check_characters(texts)
    if kinds != {float}:
        numbers = tuple(map(_number, numbers))
    return texts, numbers


def listed(names: Sequence[str]) -> str:
    """Name the first few: "carrier, origin, destination and 22 more"."""
    more = len(names) - _SOME
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_SOME])} and {more} more"


def _parsed(record: bytes) -> Any:
    try:
        return _DECODER.decode(record.decode())
    except UnicodeDecodeError:
        raise FeatureError(f"{NAME}: not UTF-8: {shown(record)}") from None
    except json.JSONDecodeError as error:
        told = f"{error.msg.removesuffix(' at')} at character {error.pos} of {len(error.doc)}"
        raise FeatureError(f"{NAME}: no JSON, {told}: {shown(record)}") from None
    except RecursionError:
        raise FeatureError(f"{NAME}: nested too deeply: {shown(record)}") from None
    except ValueError:  # Python reads no whole number of thousands of digits
        raise FeatureError(f"{NAME}: a number with too many digits: {shown(record)}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FeatureError(f"{NAME}: {shown(twice)} is given {names.count(twice)} times, expected once")
    return found


def _constant(text: str) -> NoReturn:
    raise FeatureError(f"{NAME}: {text} is no JSON, expected a number, or null where it is not known")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _other_names(fields: Mapping[str, Any]) -> str:
    strange, missing = [name for name in fields if name not in _NAMES], [n for n in FIELDS if n not in fields]
    told = [f"{listed(missing)} missing"] if missing else []
    told += [f"unknown {'fields' if len(strange) > 1 else 'field'} {listed([*map(shown, strange)])}"] if strange else []
    return f"{NAME}: {', '.join(told)}; expected the {len(FIELDS)} inputs of a flight, null for an unknown number"


def _other_kind(fields: Mapping[str, Any]) -> str:
    name = next(n for n in FIELDS if type(fields[n]) not in (_TEXT if n in TEXTS else _NUMBER))
    wanted = "a text" if name in TEXTS else "a number, or null where it is not known"
    return f"{NAME}: {name} is {_kind(fields[name])}, expected {wanted}"


def _kind(value: Any) -> str:
    kind = _KINDS.get(type(value), "a number")
    return kind if value is None or isinstance(value, dict | list) else f"{kind}, {shown(value)}"


def _check_characters(texts: Sequence[str]) -> None:
    for name, text in zip(TEXTS, texts, strict=True):
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a pair, as "\ud83d" without its other half
            raise FeatureError(f"{NAME}: {name} is no Unicode: {shown(text)}") from None


def _number(value: float | None) -> float:
    if value is None:
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf if value > 0 else -math.inf
