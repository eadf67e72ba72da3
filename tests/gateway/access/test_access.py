"""Who may ask, and how much: keys in memory, scopes, quotas in memory and in a real Redis."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from gateway.access.access import Access
from gateway.access.quotas import Quotas
from gateway.access.ring import Ring
from gateway.access.scopes import Scope
from gateway.app import build
from gateway.caller import Caller
from gateway.errors import KeysError, Refusal
from gateway.limits import Limits
from gateway.settings.schema import Settings
from store.database import Database
from store.keys import Key, Keys
from store.migrations import migrating
from tests.redis_server import RedisServer


def with_store(folder: Path, use: Callable[[Keys, Ring, Access], Awaitable[None]]) -> None:
    """Use keys of a real store, held in memory."""

    async def main() -> None:
        async with Database(f"sqlite:///{folder / 'store.db'}") as database:
            await migrating.prepare(database)
            keys = Keys(database)
            async with Ring(keys.all, refresh_s=0.05) as ring:
                await use(keys, ring, Access(ring, Quotas()))

    asyncio.run(main())


async def refused(access: Access, authorization: str | None) -> Refusal:
    with pytest.raises(Refusal) as error:
        await access.check(authorization)
    assert error.value.status == 401 and "www-authenticate" in error.value.all_headers
    return error.value


def test_a_key_counts_within_moments_of_being_made_rotated_and_revoked(tmp_path: Path) -> None:
    async def use(keys: Keys, ring: Ring, access: Access) -> None:
        key, secret = await keys.create("shop", ["boats*:infer"], {"requests_short": "5/second", "priority_most": 1})
        await refused(access, f"Bearer {secret}")  # not read yet
        await asyncio.sleep(0.3)
        caller = await access.check(f"Bearer {secret}")
        assert (caller.key_id, caller.name, caller.priority_most) == (key.id, "shop", 1)
        assert [str(scope) for scope in caller.scopes] == ["boats*:infer"]
        assert caller.limits.requests_short == "5/second"
        _, second = await keys.rotate(key.id, grace_s=0.5)
        await asyncio.sleep(0.2)
        assert await access.check(f"Bearer {secret}") == await access.check(f"bearer  {second}")
        await asyncio.sleep(0.4)
        await refused(access, f"Bearer {secret}")
        await access.check(f"Bearer {second}")
        await keys.revoke(key.id)
        await asyncio.sleep(0.3)
        await refused(access, f"Bearer {second}")

    with_store(tmp_path, use)


def test_a_key_that_has_expired_is_refused(tmp_path: Path) -> None:
    async def use(keys: Keys, ring: Ring, access: Access) -> None:
        _, secret = await keys.create("shop", ["*:infer"], expires=time.time_ns() + 400_000_000)
        await ring.refresh()
        await access.check(f"Bearer {secret}")
        await asyncio.sleep(0.5)
        await refused(access, f"Bearer {secret}")

    with_store(tmp_path, use)


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer ", "Basic Z2s6", "gk_0_x", "Bearer gk_é", "x" * 9000])
def test_what_is_no_key_is_refused_alike(given: str | None, tmp_path: Path) -> None:
    async def use(keys: Keys, ring: Ring, access: Access) -> None:
        refusal = await refused(access, given)
        assert given is None or len(given) < 8 or given not in refusal.detail

    with_store(tmp_path, use)


def test_a_store_that_is_gone_keeps_the_keys_that_were_read_last(tmp_path: Path) -> None:
    key = Key("00000001", "shop", "0" * 64, ("*:infer",))
    answers: list[Sequence[Key] | Exception] = [[key], OSError("gone"), [], [key]]
    failures = []

    async def read() -> Sequence[Key]:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def main() -> None:
        ring = Ring(read, on_failure=lambda: failures.append(1))
        assert await ring.refresh() and len(ring) == 1
        assert not await ring.refresh()
        assert len(ring) == 1 and len(failures) == 1
        assert not await ring.refresh()  # of a store that has none any more: no key is ever removed
        assert len(ring) == 1 and len(failures) == 2
        assert await ring.refresh() and len(ring) == 1

    asyncio.run(main())


def test_a_gateway_that_begins_while_the_store_is_gone_calls_no_key_wrong() -> None:
    """A caller would give up for ever: it is told to come back."""
    answers: list[Sequence[Key] | Exception] = [OSError("gone"), []]

    async def read() -> Sequence[Key]:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def main() -> None:
        ring = Ring(read)
        access = Access(ring, Quotas())
        await ring.refresh()
        with pytest.raises(Refusal) as error:
            await access.check(f"Bearer gk_00000001_{'A' * 32}")
        assert error.value.status == 503 and error.value.all_headers["Retry-After"] == "1"
        await refused(access, None)
        await ring.refresh()
        await refused(access, f"Bearer gk_00000001_{'A' * 32}")

    asyncio.run(main())


def test_a_key_with_scopes_of_another_version_is_left_out_and_costs_no_other() -> None:
    keys = [Key("00000001", "odd", "0" * 64, ("fly:away",)), Key("00000002", "shop", "0" * 64, ("*:infer",))]

    async def read() -> Sequence[Key]:
        return keys

    async def main() -> None:
        ring = Ring(read)
        await ring.refresh()
        assert len(ring) == 1

    asyncio.run(main())


def test_how_long_a_refusal_takes_tells_nothing_of_the_keys(tmp_path: Path) -> None:
    """Unknown id against known id with a wrong secret: medians of interleaved turns, within noise."""

    async def use(keys: Keys, ring: Ring, access: Access) -> None:
        key, _ = await keys.create("shop", ["*:infer"])
        await ring.refresh()
        wrong, unknown = f"gk_{key.id}_{'A' * 32}", f"gk_{'0' * 8}_{'A' * 32}"
        took: dict[str, list[int]] = {wrong: [], unknown: []}
        for _ in range(4000):
            for given in (wrong, unknown):
                begun = time.perf_counter_ns()
                assert ring.caller_of(given) is None
                took[given].append(time.perf_counter_ns() - begun)
        medians = [statistics.median(times) for times in took.values()]
        assert abs(medians[0] - medians[1]) < 0.25 * max(medians)

    with_store(tmp_path, use)


@pytest.mark.parametrize("text", ["infer", "boats:", ":infer", "boats:fly", "boats:infer:x", "boa ts:infer"])
def test_what_is_no_scope_is_an_error(text: str) -> None:
    with pytest.raises(KeysError, match="is no scope"):
        Scope.read(text)


def test_a_scope_is_of_the_models_that_fit_its_pattern_and_of_one_action() -> None:
    scope = Scope.read("boats*:infer")
    assert scope.allows("infer", "boats") and scope.allows("infer", "boats_classifier")
    assert not scope.allows("read", "boats") and not scope.allows("infer", "my_boats")
    assert not Scope.read("*:infer").allows("admin", "keys") and Scope.read("*:*").allows("admin", "keys")


@pytest.mark.parametrize(
    "written", ["many/second", "0/second", "5", "5/fortnight", "5/2days", "-1/second", "5/0second"]
)
def test_what_is_no_limit_is_an_error(written: str) -> None:
    with pytest.raises(KeysError, match="requests_short: "):
        Limits.of({"requests_short": written})


@pytest.mark.parametrize("written", ["many", "0", "5/second", "5/2days", "-1", "1.5"])
def test_what_is_no_limit_of_a_day_is_an_error(written: str) -> None:
    with pytest.raises(KeysError, match="inferences_day: "):
        Limits.of({"inferences_day": written})
    assert [Limits.of({"inferences_day": day}).windows[0].amount for day in ("5", "5/day", 5)] == [5] * 3


def test_a_limit_of_an_unknown_name_is_an_error_and_not_no_limit() -> None:
    with pytest.raises(KeysError, match="there is no limit 'request_short'"):
        Limits.of({"request_short": "5/second"})


def caller(**limits: str) -> Caller:
    return Caller("00000001", "shop", (), Limits(**limits))


async def counted(quotas: Quotas, asker: Caller, rows: int, tries: int) -> int:
    standings = [await quotas.take(asker, rows) for _ in range(tries)]
    return sum(standing.allowed for standing in standings)


@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_each_window_lets_through_what_it_says(storage: str, request: pytest.FixtureRequest) -> None:
    url = "memory://" if storage == "memory" else request.getfixturevalue("redis_server").url

    async def main() -> None:
        quotas = Quotas(url, wait_s=20)
        assert await counted(quotas, caller(requests_long="7/hour"), 1, 20) == 7
        other = Caller("00000002", "other", (), Limits(requests_long="7/hour"))
        assert await counted(quotas, other, 1, 20) == 7  # each has its own
        by_rows = Caller("00000003", "rows", (), Limits(inferences_long="100/hour"))
        assert await counted(quotas, by_rows, 32, 10) == 3
        assert await counted(quotas, by_rows, 4, 10) == 1  # a refused batch used nothing up
        by_day = Caller("00000004", "day", (), Limits(inferences_day="100"))
        assert await counted(quotas, by_day, 32, 10) == 3
        assert await counted(quotas, by_day, 4, 10) == 1

    asyncio.run(main())


def test_headers_say_what_is_left_and_when_to_come_back() -> None:
    async def main() -> None:
        quotas, asker = Quotas(), caller(requests_short="3/10seconds", inferences_day="1000")
        first = await quotas.take(asker, 10)
        assert first.headers["ratelimit-policy"] == '"requests-short";q=3;w=10, "inferences-day";q=1000;w=86400'
        assert (first.headers["ratelimit-limit"], first.headers["ratelimit-remaining"]) == ("3", "2")
        await quotas.take(asker, 10)
        await quotas.take(asker, 10)
        last = await quotas.take(asker, 10)
        assert not last.allowed and last.window is not None and last.window.name == "short"
        assert last.headers["ratelimit-remaining"] == "0" and 0 < (last.retry_after or 0) <= 20

    asyncio.run(main())


def test_more_rows_than_a_limit_ever_has_are_no_429_and_use_nothing_up() -> None:
    async def main() -> None:
        access = Access(Ring(nothing), Quotas())
        asker = caller(requests_short="5/10seconds", inferences_long="10/hour")
        before = await access.spend(asker, "boats", 1)
        with pytest.raises(Refusal, match="11 rows at once never fit into 10 inferences") as error:
            await access.spend(asker, "boats", 11)
        assert (error.value.status, error.value.slug) == (413, "over-limit")
        assert error.value.all_headers == {"ratelimit-policy": before["ratelimit-policy"]}
        after = await access.spend(asker, "boats", 2)
        assert (before["ratelimit-remaining"], after["ratelimit-remaining"]) == ("4", "3")
        with pytest.raises(Refusal) as used_up:
            await access.spend(asker, "boats", 8)
        assert used_up.value.status == 429 and int(used_up.value.all_headers["Retry-After"]) > 0

    async def nothing() -> Sequence[Key]:
        return []

    asyncio.run(main())


def test_after_retry_after_there_is_room(tmp_path: Path) -> None:
    async def main() -> None:
        quotas, asker = Quotas(), caller(requests_short="3/second")
        while (standing := await quotas.take(asker)).allowed:
            pass
        await asyncio.sleep((standing.retry_after or 0) + 0.05)
        assert (await quotas.take(asker)).allowed

    asyncio.run(main())


def test_two_processes_count_together_in_redis(redis_server: RedisServer) -> None:
    async def main() -> None:
        one, two = Quotas(redis_server.url, wait_s=20), Quotas(redis_server.url, wait_s=20)
        asker = Caller("00000010", "shop", (), Limits(requests_long="50/hour", inferences_day="1000"))
        standings = await asyncio.gather(*(quotas.take(asker, 3) for quotas in (one, two) for _ in range(60)))
        assert sum(standing.allowed for standing in standings) == 50

    asyncio.run(main())


def test_a_redis_that_is_gone_costs_no_request_or_all_as_is_set(redis_server: RedisServer) -> None:
    async def main() -> None:
        gone: list[int] = []
        lenient = Quotas(redis_server.url, on_gone=lambda: gone.append(1))
        strict = Access(Ring(nobody), Quotas(redis_server.url, refuse_when_gone=True))
        asker = Caller("00000011", "shop", (), Limits(requests_long="5/hour"))
        assert (await lenient.take(asker)).allowed and await strict.spend(asker, "m", 1)
        with redis_server.stopped():
            begun = time.monotonic()
            allowed = sum([(await lenient.take(asker)).allowed for _ in range(20)])
            assert allowed == 5 and len(gone) == 20  # each process counts for itself meanwhile
            assert time.monotonic() - begun < 2
            with pytest.raises(Refusal) as refusal:
                await strict.spend(asker, "m", 1)
            assert refusal.value.status == 503 and refusal.value.retry_after_s
        for _ in range(50):  # it is back
            before = len(gone)
            await lenient.take(asker)
            if len(gone) == before:
                return
            await asyncio.sleep(0.1)
        pytest.fail("it is not asked again")

    asyncio.run(main())


async def nobody() -> Sequence[Key]:
    return []


def test_what_is_gone_is_counted_where_operators_look(redis_server: RedisServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    settings = Settings.model_validate(
        {"store": {"url": url}, "quota": {"storage": redis_server.url, "wait_s": 0.1}, "keys": {"refresh_s": 0.05},
         "record": {"spool": tmp_path / "spool"}}
    )  # fmt: skip
    asker = Caller("00000012", "shop", (), Limits(requests_long="5/hour"))

    async def main() -> None:
        async with Database(url) as database, build(settings) as gateway:
            await migrating.prepare(database)
            assert gateway.doors is not None
            access, metrics = gateway.doors.brain.access, gateway.doors.seen.metrics
            await access.spend(asker, "m", 1)
            assert "gateway_quota_storage_gone_total 0.0" in metrics.text().decode()
            with redis_server.stopped():
                await access.spend(asker, "m", 1)
            assert "gateway_quota_storage_gone_total 1.0" in metrics.text().decode()
            await asyncio.sleep(0.3)
            assert "gateway_keys_stale_total 0.0" in metrics.text().decode()
            async with database.writing() as connection:
                await connection.exec_driver_sql("DROP TABLE keys")
            await asyncio.sleep(0.3)
            assert "gateway_keys_stale_total 0.0" not in metrics.text().decode()

    asyncio.run(main())
