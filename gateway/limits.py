"""How much a caller may ask: requests and inferences, within a short window, a long one and a day.

An inference is a row: a request of a batch of 32 is one request and 32 inferences. The names stand here alone: keys
keep limits under them, and they are settings, for callers who have none of their own.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from gateway.errors import KeysError

DAY_S = 86_400
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": DAY_S}
_WRITTEN = re.compile(r"(\d+)(?:/(\d*)(second|minute|hour|day)s?)?")


@dataclass(frozen=True)
class Window:
    """So much within so many seconds."""

    name: str  # "short", "long", "day"
    unit: str  # "requests" or "inferences"
    amount: int
    seconds: int


def _text(given: Any) -> Any:
    return str(given) if type(given) is int else given


def _within(written: str) -> str:
    _amount_and_seconds(written, by_day=False)
    return written


def _by_day(written: str) -> str:
    _amount_and_seconds(written, by_day=True)
    return written


Within = Annotated[str, BeforeValidator(_text), AfterValidator(_within)]  # "100/second", "5000/10minutes"
ByDay = Annotated[str, BeforeValidator(_text), AfterValidator(_by_day)]  # "100000"


class Limits(BaseModel):
    """The limits of a caller, each as it is written; None: none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_short: Within | None = None
    requests_long: Within | None = None
    requests_day: ByDay | None = None
    inferences_short: Within | None = None
    inferences_long: Within | None = None
    inferences_day: ByDay | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read limits as they are kept: {"requests_short": "100/second"}.

        Raises:
            KeysError: there is no limit of that name, or it is not written so.
        """
        if strange := sorted(given.keys() - set(NAMES)):
            raise KeysError(f"there is no limit {strange[0]!r}", note=f"limits are {', '.join(NAMES)}")
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise KeysError(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from error

    def kept(self) -> dict[str, str]:
        """Return those that are set, as `of` reads them."""
        return {name: written for name in NAMES if (written := getattr(self, name))}

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Its windows as they are counted, short, long, day: one that refuses leaves those after it alone."""
        return tuple(self._read())

    def _read(self) -> Iterator[Window]:
        for length in ("short", "long", "day"):
            for unit in ("requests", "inferences"):
                if written := getattr(self, f"{unit}_{length}"):
                    yield Window(length, unit, *_amount_and_seconds(written, by_day=length == "day"))


NAMES = tuple(Limits.model_fields)


def _amount_and_seconds(written: str, *, by_day: bool) -> tuple[int, int]:
    found = _WRITTEN.fullmatch(written.replace(" ", ""))
    fits = found and (found[0] == found[1] or found[0] == f"{found[1]}/day" if by_day else found[3])
    if found is None or not fits or not int(found[1]):
        expected = 'a number, "100000"' if by_day else 'a number within a time, "100/second", "5000/10minutes"'
        raise ValueError(f"{written!r} is no limit: it is {expected}")
    seconds = DAY_S if by_day else int(found[2] or 1) * _UNITS[found[3]]
    if not 1 <= seconds <= DAY_S:
        raise ValueError(f"{written!r}: a window is 1 second to a day")
    return int(found[1]), seconds
