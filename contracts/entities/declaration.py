"""What a caller of a model knows, and how the rest of its inputs is looked up, as a family declares it.

A model of tables takes rows: the wind at the origin, the seats of the aircraft. Who asks it knows the flight. A
declaration names the inputs that a caller gives, its entities, and where each of the others is found: in which table,
by which key, how old a row may be, and what is sent where there is none. A release keeps it in its manifest. Training
can join by it as clients do (tables.py), so that the two cannot differ.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from contracts.errors import SpecError
from contracts.names import RULE, is_model_name

Kind = Literal["text", "integer", "number", "time"]
# The dtypes that an input of each kind may have; the first is meant unless the declaration says more.
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32")
FLOATS = ("float32", "float64")
TEXT = "object"  # strings, Triton's BYTES
_DTYPES: Mapping[Kind, tuple[str, ...]] = {
    "text": (TEXT,),
    "integer": (*INTEGERS, *FLOATS),
    "number": FLOATS,
    "time": (TEXT, "int64"),
}
NAN = "nan"  # as a default: JSON has no NaN


@dataclass(frozen=True)
class Entity:
    """What a caller gives, and the input of the same name.

    Attributes:
        dtype: The input's. A time is sent as text in ISO 8601, with the offset of its zone, or as UTC seconds since
            1970 where this is int64.
        zone: The time zone of a time that comes without an offset, and in which it is sent: "America/New_York".
        values: All that a text may be; none: whatever it is.
        at_least, at_most: The range of an integer or a number.
        default: What is sent where a caller does not give it; None: then it is an error.
        sent: False: the model has no such input, and something is looked up by it.
        about: What it is, for people.
    """

    name: str
    kind: Kind
    dtype: str = ""
    zone: str = ""
    values: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    default: float | str | None = None
    sent: bool = True
    about: str = ""

    def __post_init__(self) -> None:
        if self.kind not in _DTYPES:
            raise SpecError(f"the entity {self.name!r} is a {self.kind!r}", note=f"kinds: {', '.join(_DTYPES)}")
        if not self.dtype:
            object.__setattr__(self, "dtype", _DTYPES[self.kind][0])
        if self.dtype not in (allowed := _DTYPES[self.kind]):
            raise SpecError(f"{self.name!r}, a {self.kind}, cannot be sent as {self.dtype}", note=", ".join(allowed))
        if (self.kind == "time") != bool(self.zone):
            raise SpecError(f"{self.name!r}: a time has a zone, and nothing else has", hint='zone="Europe/Berlin"')
        if self.zone:
            zone_of(self.zone)
        if self.values and self.kind != "text":
            raise SpecError(f"{self.name!r}: a text has values; a {self.kind} has at_least and at_most")
        if self.kind not in ("integer", "number") and (self.at_least, self.at_most) != (None, None):
            raise SpecError(f"{self.name!r}: a {self.kind} has no range")


@dataclass(frozen=True)
class AsOf:
    """Which row of several is taken: the newest that was known at a time.

    Attributes:
        time: The entity whose time that is.
        column: The table's times: UTC seconds since 1970, int64.
        lag_s: A row is known so long after its time: of an hour's average 3600.
        most_age_s: A row that is older at that time is none; None: however old it is.
    """

    time: str
    column: str = "time"
    lag_s: int = 0
    most_age_s: int | None = None

    def __post_init__(self) -> None:
        if self.lag_s < 0 or (self.most_age_s is not None and self.most_age_s < self.lag_s):
            raise SpecError(f"rows that are {self.lag_s} to {self.most_age_s} seconds old: there are none")


@dataclass(frozen=True)
class Fill:
    """What is taken from the row that was found, and the input of the same name.

    Attributes:
        column: The table's; "": it has the same name.
        default: What is sent where there is no row, or nothing in it; "nan" for a float's NaN. None: then it is an
            error; of what is not sent, whatever is looked up by it is missing, too.
        sent: False: the model has no such input, and something else is looked up by it.
    """

    name: str
    column: str = ""
    dtype: str = "float32"
    default: float | str | None = None
    sent: bool = True

    def __post_init__(self) -> None:
        if not self.column:
            object.__setattr__(self, "column", self.name)
        if self.dtype not in (*FLOATS, *INTEGERS, TEXT):
            raise SpecError(f"{self.name!r} cannot be of the type {self.dtype}")
        if self.default is None:
            return
        is_nan = self.default == NAN and self.dtype in FLOATS
        if isinstance(self.default, str) != (self.dtype == TEXT) and not is_nan:
            raise SpecError(f"the default of {self.name!r}, {self.default!r}, is no {self.dtype}")


@dataclass(frozen=True)
class Lookup:
    """A row of a table, found by its key.

    Attributes:
        key: {column of the table: the entity, or the earlier fill, that it equals}.
        view: The feature view that has the newest row of each key, where a server of features has one: its join keys
            are the columns of the key, its features those of the fills, and its event time is when a row is known.
        kept: A release has the table. False: it ages within hours, and is asked of a server of features alone.
    """

    table: str
    key: Mapping[str, str]
    fills: tuple[Fill, ...]
    as_of: AsOf | None = None
    view: str = ""
    kept: bool = True

    def __post_init__(self) -> None:
        if not is_model_name(self.table):
            raise SpecError(f"a table cannot be called {self.table!r}", note=f"a name has {RULE}")
        if not self.key and self.as_of is None:
            raise SpecError(f"nothing says which row of {self.table} is meant", hint="a key, or as_of")
        if not self.fills:
            raise SpecError(f"nothing is taken from {self.table}")
        if self.view and (self.as_of is None or not self.key or not is_model_name(self.view)):
            raise SpecError(
                f"the feature view {self.view!r} of {self.table} has no key or no time, or cannot be called so"
            )
        if not self.kept and not self.view:
            raise SpecError(f"nobody has {self.table}: no release, and no server of features", hint='view="…"')


@dataclass(frozen=True)
class Declaration:
    """The inputs of a model: what a caller knows of them, and what is looked up, in this order.

    Attributes:
        model: That takes them, each an input [B, 1]: the ensemble that clients call.
    """

    model: str
    entities: tuple[Entity, ...]
    lookups: tuple[Lookup, ...] = ()

    def __post_init__(self) -> None:
        if not is_model_name(self.model) or not self.entities:
            raise SpecError("a declaration has the model that it is of, and entities")
        known: dict[str, str] = {}
        for entity in self.entities:
            _add(known, entity.name, entity.kind)
        for lookup in self.lookups:
            for name in lookup.key.values():
                if known.get(name) not in ("text", "integer"):
                    raise SpecError(
                        f"the key of {lookup.table} has {name!r}, which is no text or integer that is known by then",
                        note=", ".join(known),
                    )
            if lookup.as_of is not None and known.get(lookup.as_of.time) != "time":
                raise SpecError(f"{lookup.table} is looked up as of {lookup.as_of.time!r}, which is no time")
            for fill in lookup.fills:
                kind = "text" if fill.dtype == TEXT else "integer" if fill.dtype in INTEGERS else "number"
                _add(known, fill.name, kind)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that a release keeps for it, each once."""
        return tuple(dict.fromkeys(lookup.table for lookup in self.lookups if lookup.kept))

    @property
    def views(self) -> tuple[Lookup, ...]:
        """The lookups that a server of features can answer."""
        return tuple(lookup for lookup in self.lookups if lookup.view)

    @property
    def inputs(self) -> dict[str, str]:
        """{input of the model: its dtype}."""
        return {part.name: part.dtype for part in self._parts() if part.sent}

    def _parts(self) -> Iterator[Entity | Fill]:
        yield from self.entities
        for lookup in self.lookups:
            yield from lookup.fills


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name.

    Raises:
        SpecError: there is none of that name, or no time zones are installed.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SpecError(
            f"there is no time zone {name!r} here", hint="install the time zones: the system's tzdata, or pip's"
        ) from error


def _add(known: dict[str, str], name: str, kind: str) -> None:
    if not name or name in known:
        raise SpecError(f"there are two of the name {name!r}" if name else "an entity or a fill has no name")
    known[name] = kind
