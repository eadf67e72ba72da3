"""A request's body, read up to a limit: JSON checked against a model's types, raw bytes, or the files of a form."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from contracts.entities.declaration import Entity
from gateway.deadline import Deadline
from gateway.refusals import MALFORMED, SLOW, TOO_LARGE, UNSUPPORTED, Fault, FaultyInput
from gateway.typed.known import values
from gateway.typed.known.signatures import Signature

_MOST_SHOWN, _MOST_FAULTS = 80, 20
_KINDS = {"text": "a text", "integer": "an integer", "number": "a number", "time": "a time, as text"}
_ARRIVES_S = 30.0  # where a request has no deadline of its own
_FORMS = ("rows", "inputs", "entities")


@dataclass(frozen=True)
class Given:
    """What a caller gives of a model's inputs, checked.

    Attributes:
        form: "rows", "inputs" or "entities".
        content: Of rows and entities a list of objects, of inputs one of lists.
        outputs: Which are wanted; none: all.
    """

    form: str
    content: Any
    outputs: tuple[str, ...] = ()


async def body(request: Request, limit: int, deadline: Deadline | None = None) -> bytes:
    """Read a body whole.

    Args:
        deadline: Until when it must be here; None: for 30 s.

    Raises:
        Refusal: it has more than `limit` bytes, what is above it is not read; it comes too slowly; or it is compressed.
    """
    if request.headers.get("content-encoding", "identity") not in ("", "identity"):
        raise UNSUPPORTED("compressed bodies are not accepted: what inflates has no limit")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TOO_LARGE(f"the body has {int(announced):,} bytes, and at most {limit:,} are taken")
    parts, size = [], 0
    try:
        async with asyncio.timeout_at((deadline or Deadline.after(_ARRIVES_S)).at):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise TOO_LARGE(f"the body has more than {limit:,} bytes")
                parts.append(part)
    except TimeoutError:
        raise SLOW("its deadline passed before all of it was here") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def media_type(request: Request) -> str:
    """Return the content type of a request, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def json_object(request: Request, content: bytes) -> dict[str, Any]:
    """Read a body that is a JSON object.

    Raises:
        Refusal: it is none, or says to be something else.
    """
    if media_type(request) not in ("application/json", ""):
        raise UNSUPPORTED(f"it is {media_type(request)[:80]}, expected application/json")
    try:
        found = from_json(content, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise MALFORMED(f"the body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise MALFORMED(f"the body is {shown(found)}, expected a JSON object")
    return found


def given(signature: Signature, found: Mapping[str, Any]) -> Given:
    """Check what a caller gives against the model's types.

    Raises:
        Refusal: it does not fit; each field that does not is named.
    """
    named = [form for form in _FORMS if form in found]
    allowed = [form for form in _FORMS if form in signature.requests]
    if len(named) != 1 or named[0] not in allowed:
        got = ", ".join(named) or ", ".join(map(str, found)) or "an empty object"
        raise FaultyInput(
            f"{signature.model.name} takes {' or '.join(allowed)}",
            [Fault("", got[:_MOST_SHOWN], f"one of {', '.join(allowed)}")],
        )
    [form] = named
    checked(signature.requests[form], found, signature)
    return Given(form, found[form], tuple(found.get("outputs") or ()))


def checked(kind: type[BaseModel], found: Mapping[str, Any], signature: Signature | None = None) -> Any:
    """Check an object against a type, and return it as that.

    Raises:
        Refusal: it does not fit.
    """
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        faults = _faults(error, signature)
        detail = "; ".join(f"{fault.field or 'the body'}: expected {fault.expected}" for fault in faults[:3])
        raise FaultyInput(detail, faults) from error


async def files(request: Request, content: bytes, most: int) -> list[bytes]:
    """Return the files of a form (multipart/form-data), in their order.

    Args:
        most: How many of them a request may have.

    Raises:
        Refusal: it is no form, or has no file or too many.
    """

    async def once() -> AsyncGenerator[bytes, None]:
        yield content

    # In memory all of it: the body is, up to its limit.
    parser = MultiPartParser(request.headers, once(), max_files=most, max_fields=16)
    parser.spool_max_size = len(content) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        told = error.message if isinstance(error, MultiPartException) else "it has no boundary"
        raise MALFORMED(f"the form cannot be read: {told}") from error
    found = [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]
    if not found:
        raise FaultyInput("the form has no file", [Fault("", "no file", f"1 to {most} files")])
    return found


def _faults(error: ValidationError, signature: Signature | None) -> list[Fault]:
    found: dict[str, Fault] = {}
    for each in error.errors(include_url=False, include_context=True):
        path = _path(each["loc"], signature)
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
        found.setdefault(pointer, Fault(pointer, _got(each), _expected(each, path, signature)))
    return list(found.values())[:_MOST_FAULTS]


def _path(loc: Sequence[int | str], signature: Signature | None) -> list[int | str]:
    """Return where in the request an error is, without what Pydantic adds of a type with several kinds."""
    path: list[int | str] = []
    for part in loc:
        inside = signature is not None and any(name in signature.model.input for name in map(str, path))
        if inside and isinstance(part, str):
            break
        path.append(part)
    return path


def _got(error: Any) -> str:
    kind, value = error["type"], error["input"]
    if kind == "missing":
        return "nothing"
    if kind == "extra_forbidden":
        return shown(str(error["loc"][-1]))
    if kind in ("too_long", "too_short") and isinstance(value, list):
        return f"{len(value):,}"
    return shown(value)


def _expected(error: Any, path: Sequence[int | str], signature: Signature | None) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind in ("too_long", "too_short") and signature is not None and len(path) == 1:
        return f"1 to {signature.model.max_batch_size} rows"
    if path and path[0] == "entities":
        return _of_entity(error, path, signature)
    if signature is not None:
        tensor = next((signature.model.input[str(part)] for part in path if part in signature.model.input), None)
        if kind == "extra_forbidden" and tensor is None:
            return f"one of {', '.join(signature.model.input)}" if len(path) > 1 else "no such field"
        if tensor is not None and kind != "extra_forbidden":
            limits = [
                f"{word} {context[name]}" for name, word in (("ge", "at least"), ("le", "at most")) if name in context
            ]
            return ", ".join([values.in_words(tensor), *limits])
    return str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def _of_entity(error: Any, path: Sequence[int | str], signature: Signature | None) -> str:
    declared = signature.declaration.entities if signature and signature.declaration else ()
    entity = next((each for each in declared if each.name == path[-1]), None)
    if entity is None:
        return f"one of {', '.join(each.name for each in declared)}"
    return in_words(entity)


def in_words(entity: Entity) -> str:
    """Say what an entity may be."""
    if entity.values:
        return f"one of {', '.join(entity.values)}"
    ends = (("at least", entity.at_least), ("at most", entity.at_most))
    limits = [f"{word} {end:g}" for word, end in ends if end is not None]
    return ", ".join([f"{entity.about or entity.name}: {_KINDS[entity.kind]}", *limits])


def shown(value: object) -> str:
    """Show what was sent, cut short."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, value)) or 'nothing'}"[:_MOST_SHOWN]
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
