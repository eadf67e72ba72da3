"""Keys, administered over HTTP by who has the scope keys:admin: what `python -m gateway keys` asks from elsewhere."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from pydantic_core import to_json

from gateway.access import scopes
from gateway.access.administering import checked, described
from gateway.errors import KeysError
from gateway.moments import Moment, ns_of
from gateway.refusals import NO_STORE, NOT_FOUND, Fault, FaultyInput
from gateway.typed import reading
from gateway.typed.parts import Parts, caller_of, parts_of
from store.errors import DatabaseGoneError, SchemaError, UnknownError
from store.keys import Keys

router = APIRouter(prefix="/v1/admin/keys", tags=["keys"])
_YEAR_S = 366 * 86_400
T = TypeVar("T")


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        StrictStr, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["web shop"])
    ]
    scopes: list[StrictStr] = Field(
        default=[*scopes.DEFAULT],
        max_length=64,
        description="MODELS:ACTION; without them *:infer *:read *:feedback",
        examples=[["boats*:infer"]],
    )
    limits: dict[str, str | int] = Field(
        default={}, description="as settings.quota has them", examples=[{"requests_short": "100/second"}]
    )
    expires: Moment | None = None


class Rotation(BaseModel):
    """A key to get another secret."""

    model_config = ConfigDict(extra="forbid")

    grace_s: float = Field(
        default=86_400.0,
        ge=0,
        le=_YEAR_S,
        description="for how long the secret before is still good; a day where it is left out",
    )


class KeyAbout(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    limits: dict[str, Any]
    state: str = Field(description="good, expired or revoked")
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    rotated_until: datetime | None = Field(default=None, description="until when the secret before is still good")


class KeyMade(KeyAbout):
    """A key with its secret, which nobody can be told again."""

    secret: str = Field(description="what a caller sends: Authorization: Bearer SECRET")


class KeyList(BaseModel):
    """All keys, the oldest first."""

    keys: list[KeyAbout]


@router.get("", response_model=KeyList, operation_id="list_keys")
async def list_keys(request: Request) -> Response:
    """List all keys, also expired and revoked ones."""
    keys = await _keys(request)
    return _answer({"keys": [described(key) for key in await _done(keys.all())]})


@router.post("", response_model=KeyMade, status_code=201, operation_id="create_key")
async def create_key(request: Request) -> Response:
    """Make a key. The answer has its secret, which is shown this once."""
    keys = await _keys(request)
    new: NewKey = await _read(request, NewKey)
    limits = _checked(new.scopes, new.limits)
    expires = ns_of(new.expires) if new.expires else None
    key, secret = await _done(keys.create(new.name, new.scopes, limits, expires))
    return _answer({**described(key), "secret": secret}, 201)


@router.post("/{key_id}/rotate", response_model=KeyMade, operation_id="rotate_key")
async def rotate_key(request: Request, key_id: str) -> Response:
    """Give a key another secret; the one before is good for a while longer."""
    keys = await _keys(request)
    content = await reading.body(request, 65_536)
    rotation = reading.checked(Rotation, reading.json_object(request, content)) if content else Rotation()
    key, secret = await _done(keys.rotate(key_id, rotation.grace_s))
    return _answer({**described(key), "secret": secret})


@router.delete("/{key_id}", response_model=KeyAbout, operation_id="revoke_key")
async def revoke_key(request: Request, key_id: str) -> Response:
    """Make a key worth nothing, for ever; every gateway knows within two seconds."""
    keys = await _keys(request)
    return _answer(described(await _done(keys.revoke(key_id))))


def _checked(texts: list[str], limits: dict[str, Any]) -> dict[str, Any]:
    try:
        return checked(texts, limits)
    except (KeysError, ValueError) as error:
        got = f"scopes {', '.join(texts)}; limits {limits}"[:80]
        raise FaultyInput(
            str(error), [Fault("", got, "scopes MODELS:ACTION, limits as settings.quota has them")]
        ) from error


async def _keys(request: Request) -> Keys:
    parts: Parts = parts_of(request)
    caller = await caller_of(request)
    parts.access.permit(caller, "keys", "admin")
    if parts.keys is None:
        raise NO_STORE("this gateway has no store", retry_after_s=60.0)
    return parts.keys


async def _read(request: Request, kind: type[Any]) -> Any:
    return reading.checked(kind, reading.json_object(request, await reading.body(request, 65_536)))


async def _done(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except UnknownError as error:
        raise NOT_FOUND(str(error).partition("\n")[0]) from error
    except (DatabaseGoneError, SchemaError) as error:
        raise NO_STORE("the store does not answer", retry_after_s=2.0) from error


def _answer(content: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(content), status, {"cache-control": "no-store"}, media_type="application/json")
