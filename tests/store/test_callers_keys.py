"""Keys: shown once, kept as a hash, revoked and rotated; which of them are good at a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from store.database import Database
from store.errors import UnknownError
from store.keys import Keys, authentic
from store.migrations import migrating

_T = TypeVar("_T")


def with_keys(url: str, do: Callable[[Keys], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with Database(url) as database:
            await migrating.prepare(database)
            return await do(Keys(database))

    return asyncio.run(run())


def test_a_secret_is_nowhere_in_the_database(tmp_path: Path) -> None:
    _, secret = with_keys(f"sqlite:///{tmp_path / 'store.db'}", lambda keys: keys.create("web"))
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"web" in stored
    assert secret.encode() not in stored and secret[12:].encode() not in stored


def test_a_key_is_as_it_was_made_and_good_until_it_is_revoked(url: str) -> None:
    async def play(keys: Keys) -> None:
        key, secret = await keys.create("web", ["boats*:infer"], {"requests_per_s": 5}, expires=None)
        other, _ = await keys.create("other")
        assert await keys.all() == [key, other] and await keys.get(key.id) == key
        now = time.time_ns()
        assert authentic({key.id: key, other.id: other}, secret, now) == key
        revoked = await keys.revoke(key.id)
        assert authentic({key.id: revoked}, secret, now) is None
        assert (await keys.revoke(key.id)).revoked == revoked.revoked, "when it was revoked stays"
        with pytest.raises(UnknownError, match="is revoked"):
            await keys.rotate(key.id)

    with_keys(url, play)


def test_a_rotated_key_has_two_secrets_for_a_while(url: str) -> None:
    async def play(keys: Keys) -> None:
        key, first = await keys.create("web")
        rotated, second = await keys.rotate(key.id, grace_s=60)
        assert await keys.get(key.id) == rotated and rotated.id == key.id
        known, now = {key.id: rotated}, time.time_ns()
        assert authentic(known, first, now) and authentic(known, second, now)
        assert authentic(known, first, now + 61_000_000_000) is None
        assert authentic(known, second, now + 61_000_000_000)
        again, third = await keys.rotate(key.id, grace_s=60)
        assert [bool(authentic({key.id: again}, each, now)) for each in (first, second, third)] == [False, True, True]

    with_keys(url, play)


def test_an_expired_key_and_what_is_no_secret_are_good_for_nothing(url: str) -> None:
    key, secret = with_keys(url, lambda keys: keys.create("web", expires=1_000))
    assert authentic({key.id: key}, secret, 999) == key
    assert authentic({key.id: key}, secret, 1_000) is None
    for wrong in (
        "",
        "gk_",
        f"{secret}x",
        secret.replace("gk", "GK"),
        f"gk_{key.id}_{'a' * 32}",
        "gk_\udcff",
        secret[:-1],
    ):
        assert authentic({key.id: key}, wrong, 0) is None, wrong


def test_what_there_is_not_is_named(url: str) -> None:
    for change in (lambda keys: keys.revoke("nobody"), lambda keys: keys.rotate("nobody"), lambda k: k.get("nobody")):
        with pytest.raises(UnknownError, match="there is no key 'nobody'"):
            with_keys(url, change)
