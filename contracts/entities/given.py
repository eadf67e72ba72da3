"""What a caller gives for an entity, checked: a text, a number, or a time that exists."""

import difflib
import math
import re
import unicodedata
from datetime import UTC, date, datetime
from numbers import Integral, Real

import numpy as np

from contracts.entities.declaration import Entity, zone_of
from contracts.errors import EntityError

Value = str | int | float | datetime

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_MOST_CHARACTERS = 256  # of a text: a name is shorter, and who sends more has mixed something up
_NO_CHARACTERS = ("Cc", "Cs")  # Unicode's categories: control characters, and halves of a character
_MOST_SHOWN = 60  # characters that an error quotes


def value(entity: Entity, raw: object) -> Value:
    """Check what was given for an entity, and return it as its kind has it; a time in the zone of the entity.

    Numbers and times may be text, as a file or a command line has them.

    Raises:
        EntityError: it is none.
    """
    if entity.kind == "text":
        return _text(entity, raw)
    if entity.kind == "time":
        return _time(entity, raw)
    found = _integer(entity, raw) if entity.kind == "integer" else _number(entity, raw)
    low, high = entity.at_least, entity.at_most
    if (low is not None and found < low) or (high is not None and found > high):
        ends = [f"{end} {limit:g}" for end, limit in (("at least", low), ("at most", high)) if limit is not None]
        raise EntityError(f"{entity.name} is {found:g}, and must be {' and '.join(ends)}")
    return found


def _text(entity: Entity, raw: object) -> str:
    if isinstance(raw, Integral) and not isinstance(raw, bool):  # a number that is a name, as JSON and tables have it
        raw = str(int(raw))
    if not isinstance(raw, str):
        raise _is_no(entity, raw)
    strange = [character for character in raw if unicodedata.category(character) in _NO_CHARACTERS]
    if strange or not raw.strip() or len(raw) > _MOST_CHARACTERS:
        raise EntityError(
            f"{entity.name} is {_shown(raw)}",
            note=f"a text has 1 to {_MOST_CHARACTERS} characters, and no control characters",
        )
    if entity.values and raw not in entity.values:
        near = difflib.get_close_matches(raw.upper(), [known.upper() for known in entity.values], n=1)
        meant = next((known for known in entity.values if [known.upper()] == near), None)
        raise EntityError(
            f"there is no {entity.name} {raw!r}",
            note=f"known are {', '.join(entity.values[:20])}{', …' * (len(entity.values) > 20)}",
            hint=f"is {meant!r} meant?" if meant else None,
        )
    return raw


def _integer(entity: Entity, raw: object) -> int:
    if isinstance(raw, str) and _INTEGER.fullmatch(raw.strip()):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, Integral):
        raise _is_no(entity, raw)
    found = int(raw)
    limits = np.iinfo(entity.dtype if entity.dtype[0] in "iu" else np.int64)
    if not limits.min <= found <= limits.max:
        raise EntityError(f"{entity.name} is {found}, which no {limits.dtype} can be")
    return found


def _number(entity: Entity, raw: object) -> float:
    if isinstance(raw, str) and _NUMBER.fullmatch(raw.strip()):
        raw = float(raw)
    if isinstance(raw, bool | np.bool_) or not isinstance(raw, Real):
        raise _is_no(entity, raw)
    try:
        found = float(raw)
    except OverflowError:
        found = math.inf
    if not abs(found) <= float(np.finfo(entity.dtype).max):  # NaN is not, either
        raise EntityError(f"{entity.name} is {found}, which is no number that a {entity.dtype} can be")
    return found


def _time(entity: Entity, raw: object) -> datetime:
    found = _parsed(entity, raw)
    zone = zone_of(entity.zone)
    try:
        if found.tzinfo is not None:
            return found.astimezone(UTC).astimezone(zone)
        early, late = (found.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if early.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != found.replace(fold=0):
            raise EntityError(
                f"{entity.name} is {found}, a time that does not exist in {entity.zone}: the clocks are put forward",
                hint=f"is {early.astimezone(UTC).astimezone(zone).isoformat()} meant?",
            )
        if early.utcoffset() != late.utcoffset():
            raise EntityError(
                f"{entity.name} is {found}, which is twice in {entity.zone}: the clocks are put back",
                hint=f"say which: {early.isoformat()} or {late.isoformat()}",
            )
    except (OverflowError, ValueError) as error:
        raise EntityError(f"{entity.name} is {found}, which is out of range") from error
    return early


def _parsed(entity: Entity, raw: object) -> datetime:
    if isinstance(raw, datetime):
        return raw
    if not isinstance(raw, str):
        raise _is_no(entity, raw)
    text = raw.strip()
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise _is_no(entity, raw, why=str(error)) from error
    try:
        date.fromisoformat(text)
    except ValueError:
        return found
    raise EntityError(f"{entity.name} is {text!r}, a day without a time", hint=f"{found.isoformat()} is its begin")


def _is_no(entity: Entity, raw: object, why: str | None = None) -> EntityError:
    example = {
        "text": "a text",
        "integer": "a whole number",
        "number": "a number",
        "time": "a time in ISO 8601, as in 2013-11-03T08:30 or, with its offset, 2013-11-03T08:30-05:00",
    }[entity.kind]
    return EntityError(f"{entity.name} is {_shown(raw)}, and must be {example}", note=why)


def _shown(raw: object) -> str:
    told = ascii(raw)
    return told if len(told) <= _MOST_SHOWN else f"{told[:_MOST_SHOWN]}…"
