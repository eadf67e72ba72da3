"""Callers' keys: a secret is shown once, when it is made; the store keeps its SHA-256.

key, secret = await Keys(database).create("web", scopes=["boats*:infer"])
authentic({key.id: key}, secret, time.time_ns())   # what a gateway asks of the keys in its memory
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, insert, select, update

from store import schema
from store.database import Database
from store.errors import UnknownError

SECRET = re.compile(r"gk_([0-9a-f]{8})_[A-Za-z0-9_-]{32}")
EVERYTHING = ("*:*",)
_NEVER = 1 << 63  # ns since 1970: in the year 2262


@dataclass(frozen=True)
class Key:
    """A key as the store has it; times are nanoseconds since 1970.

    Attributes:
        scopes: "MODEL:ACTION" each, both with `*`; what they mean is the gateway's.
        limits: Names and numbers; what they mean is the gateway's.
        hash: SHA-256 of the secret, in hex.
        previous_hash: Of the secret before the last rotation, which is good until `previous_until`.
    """

    id: str
    name: str
    hash: str = field(repr=False)
    scopes: tuple[str, ...] = EVERYTHING
    limits: Mapping[str, Any] = field(default_factory=dict)
    created: int = 0
    expires: int | None = None
    revoked: int | None = None
    previous_hash: str | None = field(default=None, repr=False)
    previous_until: int | None = None

    def is_good(self, now: int) -> bool:
        """Tell whether it is neither revoked nor expired; both are looked at, whichever it is."""
        expires = _NEVER if self.expires is None else self.expires
        return (self.revoked is None) & (now < expires)

    def state(self, now: int) -> str:
        """Return "revoked", "expired" or "good"."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "good"


# In place of one that is not known, so that as much is done for it.
_NOBODY = Key("", "nobody", hashlib.sha256(secrets.token_bytes(32)).hexdigest(), revoked=0)


class Keys:
    """The keys of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        scopes: Sequence[str] = EVERYTHING,
        limits: Mapping[str, Any] | None = None,
        expires: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key; return it, and the secret, which nobody can be told again.

        Raises:
            DatabaseGoneError: the database does not answer.
        """
        secret = _new_secret(secrets.token_hex(4))
        key = Key(
            secret[3:11], name, hash_of(secret), tuple(scopes), dict(limits or {}), time.time_ns(), expires=expires
        )
        row = {**vars(key), "scopes": list(key.scopes)}
        async with self._database.writing() as connection:
            await connection.execute(insert(schema.Key).values(row))
        return key, secret

    async def all(self) -> list[Key]:
        """Return all keys, also revoked and expired ones, the oldest first; one statement."""
        async with self._database.reading() as connection:
            found = await connection.execute(select(schema.Key.__table__).order_by(schema.Key.created, schema.Key.id))
            return [_key(row) for row in found]

    async def get(self, key_id: str) -> Key:
        """Return one key.

        Raises:
            UnknownError: there is none with that id.
        """
        async with self._database.reading() as connection:
            row = (await connection.execute(_one(key_id))).one_or_none()
        return _key(_known(row, key_id))

    async def revoke(self, key_id: str) -> Key:
        """Make a key worth nothing, from now on and for ever; one that is revoked stays as it is.

        Raises:
            UnknownError: there is none with that id.
        """
        async with self._database.writing() as connection:
            key = _key(_known((await connection.execute(_one(key_id).with_for_update())).one_or_none(), key_id))
            if key.revoked is None:
                key = replace(key, revoked=time.time_ns())
                await connection.execute(_change(key_id).values(revoked=key.revoked))
        return key

    async def rotate(self, key_id: str, grace_s: float = 86_400) -> tuple[Key, str]:
        """Give a key another secret; the one before is good for `grace_s` more, the one before that no longer.

        Raises:
            UnknownError: there is none with that id, or it is revoked.
        """
        async with self._database.writing() as connection:
            key = _key(_known((await connection.execute(_one(key_id).with_for_update())).one_or_none(), key_id))
            if key.revoked is not None:
                raise UnknownError(f"the key {key_id} is revoked", hint="make another: python -m gateway keys create")
            secret = _new_secret(key_id)
            until = time.time_ns() + int(grace_s * 1e9)
            changed: dict[str, Any] = {
                "hash": hash_of(secret), "previous_hash": key.hash, "previous_until": until
            }  # fmt: skip
            await connection.execute(_change(key_id).values(changed))
        return replace(key, **changed), secret


def hash_of(secret: str) -> str:
    """Return what the store keeps of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def authentic(keys: Mapping[str, Key], secret: str, now: int) -> Key | None:
    """Return the key that has this secret and is good, from those that are known; the time it takes tells nothing.

    Whatever is wrong, the same is done: the secret is hashed first, compared in constant time with two hashes, and all
    that may be wrong is looked at before anything is decided.

    Args:
        keys: By id.
        now: In nanoseconds since 1970.
    """
    found = SECRET.fullmatch(secret)
    key = keys.get(found[1] if found else "", _NOBODY)
    given = hash_of(secret)
    is_own = hmac.compare_digest(given, key.hash)
    is_former = hmac.compare_digest(given, key.previous_hash or _NOBODY.hash) & (now < (key.previous_until or 0))
    return key if (is_own | is_former) & key.is_good(now) else None


def _new_secret(key_id: str) -> str:
    return f"gk_{key_id}_{secrets.token_urlsafe(24)}"


def _one(key_id: str) -> Any:
    return select(schema.Key.__table__).where(schema.Key.id == key_id)


def _change(key_id: str) -> Any:
    return update(schema.Key).where(schema.Key.id == key_id)


def _known(row: Row[Any] | None, key_id: str) -> Row[Any]:
    if row is None:
        raise UnknownError(f"there is no key {key_id!r}", hint="python -m gateway keys list")
    return row


def _key(row: Row[Any]) -> Key:
    return Key(**{**row._mapping, "scopes": tuple(row.scopes)})
