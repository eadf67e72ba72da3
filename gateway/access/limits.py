"""How much a key may ask: requests and inferences, within a short window, a long one and a day.

An inference is a row: a request of a batch of 32 is one request and 32 inferences.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

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


@dataclass(frozen=True)
class Limits:
    """The limits of a key, each as it is written: "100/second", "5000/10minutes", and of a day a number; None: none."""

    requests_short: str | None = None
    requests_long: str | None = None
    requests_day: str | None = None
    inferences_short: str | None = None
    inferences_long: str | None = None
    inferences_day: str | None = None
    windows: tuple[Window, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple(self._read()))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read limits as they are kept: {"requests_short": "100/second"}.

        Raises:
            KeysError: there is no limit of that name, or it is not written so.
        """
        names = [each.name for each in fields(cls) if each.init]
        if strange := sorted(given.keys() - set(names)):
            raise KeysError(f"there is no limit {strange[0]!r}", note=f"limits are {', '.join(names)}")
        return cls(**{name: None if value is None else str(value) for name, value in given.items()})

    def kept(self) -> dict[str, str]:
        """Return those that are set, as `of` reads them."""
        return {each.name: value for each in fields(self) if each.init and (value := getattr(self, each.name))}

    def _read(self) -> Iterator[Window]:
        """Yield the windows, the shortest first: what is refused by it has used up nothing of the others."""
        for length in ("short", "long", "day"):
            for unit in ("requests", "inferences"):
                if written := getattr(self, f"{unit}_{length}"):
                    yield _window(length, unit, written)


def _window(length: str, unit: str, written: str) -> Window:
    found = _WRITTEN.fullmatch(written.replace(" ", ""))
    within = found and (found[3] or length == "day")
    if found is None or not within or (length == "day" and found[3] not in (None, "day")) or not int(found[1]):
        raise KeysError(
            f"{written!r} is no limit of {unit}",
            note='of a day it is a number, "100000", else a number within a time: "100/second", "5000/10minutes"',
        )
    seconds = DAY_S if length == "day" else int(found[2] or 1) * _UNITS[found[3]]
    if not 1 <= seconds <= DAY_S:
        raise KeysError(f"{written!r}: a window is 1 second to a day")
    return Window(length, unit, int(found[1]), seconds)
