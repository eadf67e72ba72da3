"""Dataclasses of what JSON held."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints


def decode(kind: Any, raw: Any) -> Any:
    """Turn `raw`, as json.loads made it, into the annotated type `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast("Any", kind)(**{name: decode(hints[name], value) for name, value in raw.items()})
    if origin is tuple:
        return tuple(decode(arguments[0], value) for value in raw)
    if origin is Mapping:
        return {key: decode(arguments[1], value) for key, value in raw.items()}
    if origin is UnionType and raw is not None:  # only "… | None" is used
        return decode(arguments[0], raw)
    return raw
