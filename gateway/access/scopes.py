"""What a key may do: an action on the models whose names fit a pattern, written `boats*:infer`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Self

from gateway.errors import KeysError

# `admin` is of what there is to administer, not of models: keys:admin. `*` is all of them.
ACTIONS = ("infer", "read", "feedback", "admin", "*")
DEFAULT = ("*:infer", "*:read", "*:feedback")
_WRITTEN = re.compile(r"([A-Za-z0-9_.*?-]{1,128}):([a-z]+|\*)")


@dataclass(frozen=True)
class Scope:
    """A pattern of the names of models (* is any characters, ? one), and what may be done with those."""

    pattern: str
    action: str
    _fits: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_fits", re.compile(translate(self.pattern)))

    def __str__(self) -> str:
        return f"{self.pattern}:{self.action}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a scope as it is written.

        Raises:
            KeysError: it is none.
        """
        found = _WRITTEN.fullmatch(text)
        if found is None or found[2] not in ACTIONS:
            raise KeysError(
                f"{text!r} is no scope",
                note=f"a scope is MODELS:ACTION, and an action one of {', '.join(ACTIONS)}",
                hint="boats*:infer, *:read, keys:admin",
            )
        return cls(found[1], found[2])

    def allows(self, action: str, model: str) -> bool:
        """Tell whether it allows an action on a model."""
        return self.action in (action, "*") and self._fits.match(model) is not None


def read_all(texts: Iterable[str]) -> tuple[Scope, ...]:
    """Read scopes, each as it is written.

    Raises:
        KeysError: one is none.
    """
    return tuple(_read(text) for text in texts)


_read = lru_cache(1024)(Scope.read)
