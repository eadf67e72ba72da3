"""JSON that two parsers cannot read as two things: valid, in UTF-8, no key twice, every number whole.

Triton takes the first of two equal keys and most parsers the last. The same rules as of the shipped nginx's front:
docs/decisions/0015-a-front-that-parses.md.
"""

import json
from typing import Any

from gateway.errors import Refusal


def refused(reason: str) -> Refusal:
    """Return what a request gets that is not passed on. Reasons hold no text of the request."""
    return Refusal(400, "bad-request", "The request is not one that a model takes", reason)


def parse(content: bytes) -> Any:
    """Read a request's JSON.

    Raises:
        Refusal: 400.
    """
    try:
        return _DECODER.decode(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise refused("the JSON of the request is not valid UTF-8") from None
    except (ValueError, RecursionError):
        raise refused("the JSON of the request is not valid") from None


def parse_answer(content: bytes) -> Any:
    """Read the JSON of a Triton's answer, in which numbers may have fractions; it is passed on as it came.

    Raises:
        ValueError: it is none.
    """
    try:
        return _ANSWERS.decode(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("too deep") from error


def write(value: Any) -> bytes:
    """Write what was understood, in UTF-8 and without blanks.

    Raises:
        Refusal: 400: a text has half of a character.
    """
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise refused("the JSON of the request has half of a character") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise refused("the JSON of the request has a key twice")
    return found


def _whole(text: str) -> Any:
    raise refused("a number in the JSON of the request is not whole")


def _none(text: str) -> Any:
    raise ValueError(text)  # NaN, Infinity


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_whole, parse_constant=_none)
_ANSWERS = json.JSONDecoder()
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
