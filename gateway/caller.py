"""Who asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caller:
    """Whom a key or a token speaks for.

    Attributes:
        key_id: The key's public id, which records and metrics name; None for a token of an issuer, or where no key is
            asked for.
        scopes: (pattern of model names, action): "fashion*", "infer". "*" is any of both.
        limits: {name: limit}, of the rooms that count.
        priority_most: The highest class that it may ask for; 1 is the highest there is, 3 the lowest.
    """

    key_id: str | None
    name: str
    scopes: tuple[tuple[str, str], ...] = ()
    limits: Mapping[str, object] = field(default_factory=dict)
    priority_most: int = 2
