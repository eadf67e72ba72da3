"""What callers tell afterwards: what was true of an answer, and what else has happened. Both go to the spool.

A label may come late, twice, before the answer is written down, or for a request that nobody knows; the newest by its
own time holds, and those before stay as its history.
"""

import hashlib
import json
import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictFloat, StrictStr
from pydantic_core import to_json

from gateway.caller import Caller
from gateway.moments import Moment, ns_of
from gateway.refusals import NOT_ALLOWED, Fault, FaultyInput
from gateway.typed import reading
from gateway.typed.parts import Parts, caller_of, parts_of

_MOST_AT_ONCE, _MOST_VALUE = 1000, 4096
_ID = Annotated[StrictStr, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
_NAME = Annotated[StrictStr, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
router = APIRouter(prefix="/v1", tags=["afterwards"])


class Label(BaseModel):
    """What was true of an answer."""

    model_config = ConfigDict(extra="forbid")

    request_id: _ID = Field(description="of the answer", examples=["0f3a5c1e9b7d4f2a8c6e1d3b5a7f9c2e"])
    value: JsonValue = Field(description="what was true; null takes a label back", examples=["Sneaker", 0.0])
    name: _NAME = Field(
        default="label", description="which truth, where there are several of an answer; else it is `label`"
    )
    time: Moment | None = Field(default=None, description="when it was known; default: now. The newest holds")


class Event(BaseModel):
    """Something that has happened: a conversion, a feature's new value."""

    model_config = ConfigDict(extra="forbid")

    name: _NAME = Field(examples=["converted"])
    request_id: _ID | None = Field(default=None, description="of the answer that it followed")
    entity: _NAME | None = Field(default=None, description="what or whom it happened to")
    value: StrictFloat | None = Field(default=None, allow_inf_nan=False)
    data: dict[str, JsonValue] | None = None
    time: Moment | None = Field(default=None, description="when it happened; default: now")
    id: _ID | None = Field(default=None, description="yours: the same one twice is one event")


class Labels(BaseModel):
    """Labels of answers."""

    model_config = ConfigDict(extra="forbid")

    labels: list[Label] = Field(min_length=1, max_length=_MOST_AT_ONCE)


class Events(BaseModel):
    """What has happened."""

    model_config = ConfigDict(extra="forbid")

    events: list[Event] = Field(min_length=1, max_length=_MOST_AT_ONCE)


class Taken(BaseModel):
    """How many were taken; they are in the store within seconds."""

    taken: int


@router.post("/feedback", status_code=202, response_model=Taken, operation_id="send_feedback")
async def feedback(request: Request) -> Response:
    """Tell what was true of answers, by their request ids: late, again or corrected, in any order."""
    parts = parts_of(request)
    caller = await _caller(parts, request)
    found = await _read(parts, request, Labels)
    now = time.time_ns()
    return _taken(parts, [_label(label, caller, now) for label in found.labels])


@router.post("/events", status_code=202, response_model=Taken, operation_id="send_events")
async def events(request: Request) -> Response:
    """Tell what has happened."""
    parts = parts_of(request)
    caller = await _caller(parts, request)
    found = await _read(parts, request, Events)
    now = time.time_ns()
    return _taken(parts, [_event(event, caller, now) for event in found.events])


async def _caller(parts: Parts, request: Request) -> Caller:
    caller = await caller_of(request)
    if not any(scope.action in ("feedback", "*") for scope in caller.scopes):
        raise NOT_ALLOWED(f"the key {caller.name!r} has no scope for feedback")
    await parts.access.spend(caller, "", 1)
    return caller


async def _read(parts: Parts, request: Request, kind: type[Any]) -> Any:
    content = await reading.body(request, parts.settings.limits.typed_body_bytes)
    return reading.checked(kind, reading.json_object(request, content))


def _label(label: Label, caller: Caller, now: int) -> dict[str, Any]:
    at = _ns(label.time, now)
    value = _limited(label.value, "value")
    # The same label sent twice is one: its id is what it says.
    said = json.dumps([label.request_id, label.name, value, at if label.time else None, caller.key_id], sort_keys=True)
    return {
        "kind": "label",
        "id": hashlib.sha256((said if label.time else f"{said} {now}").encode()).hexdigest()[:32],
        "request": label.request_id,
        "name": label.name,
        "value": value,
        "time": at,
        "received": now,
        "key": caller.key_id,
    }


def _event(event: Event, caller: Caller, now: int) -> dict[str, Any]:
    at = _ns(event.time, now)
    own = event.id or f"{event.name} {event.request_id} {event.entity} {event.value} {at}"
    return {
        "kind": "event",
        "id": hashlib.sha256(f"{caller.key_id}\n{own}".encode()).hexdigest()[:32],
        "name": event.name,
        "time": at,
        "received": now,
        "request": event.request_id,
        "entity": event.entity,
        "value": event.value,
        "data": _limited(event.data, "data"),
        "key": caller.key_id,
    }


def _ns(given: datetime | None, now: int) -> int:
    return now if given is None else ns_of(given)


def _limited(value: Any, field: str) -> Any:
    if (size := len(to_json(value))) > _MOST_VALUE:
        raise FaultyInput(f"{field} is too large", [Fault(f"/{field}", f"{size:,} bytes", f"at most {_MOST_VALUE:,}")])
    if not _is_short(value):
        fault = Fault(f"/{field}", "a longer number", "whole numbers of 64 bits")
        raise FaultyInput(f"{field} has a number that is too long", [fault])
    return value


def _is_short(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_short, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _taken(parts: Parts, records: list[dict[str, Any]]) -> Response:
    for record in records:
        parts.brain.spool.put(record)
    return Response(to_json({"taken": len(records)}), status_code=202, media_type="application/json")
