"""A Triton that is there and says nothing, as a frozen process, costs no request that another one may answer."""

import asyncio
import os
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.brain import presence
from gateway.brain.endpoints import Endpoints
from gateway.brain.readiness import Readiness
from gateway.errors import FullError, LateError, Refusal
from gateway.triton.address import Address
from gateway.triton.upstream import Upstream
from tests.gateway.brain.test_coming_back import OK, Stand, ask, behind, refused


class Frozen(Stand):
    """One that may be stopped like a process by SIGSTOP: connections are made, and nobody reads them."""

    def __init__(self, slow_s: float = 0.0) -> None:
        super().__init__(slow_s=slow_s)
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.goes_on.wait()
        await super()._answer(reader, writer)


class Drips(Stand):
    """One that sends a byte a while, whatever it is asked."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(len(OK)):
            writer.write(OK[number : number + 1])
            await asyncio.sleep(0.3)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as soon as in truth."""
    monkeypatch.setattr(presence, "LOOK_S", 0.5)
    monkeypatch.setattr(presence, "SILENT_S", 0.15)
    monkeypatch.setattr(presence, "PROBE_S", 0.1)


async def once(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def played(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("kind", [Frozen, Drips])
def test_who_asked_a_silent_server_is_answered_by_another(kind: type[Stand]) -> None:
    async def main() -> None:
        silent, other = kind(), Stand()
        if isinstance(silent, Frozen):
            silent.goes_on.clear()
        async with behind(silent, other) as endpoints:
            assert await asyncio.gather(*(ask(endpoints, 20.0) for _ in range(8))) == [200] * 8
            first, second = endpoints.all
            assert (first.is_up, second.is_up) == (False, True)
            assert first.upstream.in_flight == 0, "no place is kept there"
            began = time.monotonic()
            assert [await ask(endpoints) for _ in range(4)] == [200] * 4
            assert time.monotonic() - began < 1.0, "nobody is sent there any more"

    played(main)


def test_others_are_asked_as_soon_as_one_is_looked_at() -> None:
    """Before it is known for sure: who has not a second would not live to see that."""

    async def main() -> None:
        silent, other = Frozen(), Stand()
        async with behind(silent, other) as endpoints:
            silent.goes_on.clear()
            first = asyncio.create_task(ask(endpoints, 20.0))
            await once(lambda: endpoints.all[0].looking is not None)
            assert [await ask(endpoints) for _ in range(6)] == [200] * 6
            assert not first.done()
            assert await first == 200

    played(main)


def test_callers_in_a_hurry_find_out_together() -> None:
    """None of them waits as long as a look takes."""

    async def main() -> None:
        silent = Frozen()
        async with behind(silent) as endpoints:
            silent.goes_on.clear()
            while endpoints.all[0].is_up:
                with pytest.raises((LateError, Refusal)):
                    await ask(endpoints, 0.1)
            assert endpoints.all[0].is_silent

    played(main)


def test_a_server_that_goes_on_answers_what_it_was_asked() -> None:
    """The only one: what waits for it is left there, what comes meanwhile waits here."""

    async def main() -> None:
        only = Frozen()
        async with behind(only) as endpoints:
            assert await ask(endpoints) == 200
            only.goes_on.clear()
            early = [asyncio.create_task(ask(endpoints, 20.0)) for _ in range(4)]
            await once(lambda: not endpoints.all[0].is_up)
            late = [asyncio.create_task(ask(endpoints, 20.0)) for _ in range(4)]
            refusal, took_s = await refused(ask(endpoints, 0.5))
            assert (refusal.status, refusal.all_headers["Retry-After"]) == (503, "1")
            assert took_s < 0.6
            only.goes_on.set()
            assert await asyncio.gather(*early, *late) == [200] * 8
            assert only.asked == 9, "none of them was sent twice"
            await once(lambda: endpoints.all[0].is_up)

    played(main)


def test_who_asked_before_it_was_known_is_told_that_it_is_not_its_deadline_alone() -> None:
    async def main() -> None:
        only = Frozen()
        async with behind(only) as endpoints:
            only.goes_on.clear()
            refusal, took_s = await refused(ask(endpoints, 2.0))
            assert (refusal.status, refusal.slug, refusal.all_headers["Retry-After"]) == (
                503,
                "server-unavailable",
                "1",
            )
            assert took_s < 2.5

    played(main)


def test_what_waits_for_a_silent_server_goes_to_the_first_that_is_back() -> None:
    async def main() -> None:
        silent, gone = Frozen(), Stand()
        async with behind(silent, gone) as endpoints:
            await gone.stop()
            assert await ask(endpoints) == 200
            silent.goes_on.clear()
            waiting = [asyncio.create_task(ask(endpoints, 20.0)) for _ in range(4)]
            await once(lambda: not endpoints.up())
            await gone.start()
            assert await asyncio.gather(*waiting) == [200] * 4
            assert gone.asked == 4

    played(main)


def test_a_server_that_computes_is_no_silent_one() -> None:
    """However long it takes: it says that it is live."""

    async def main() -> None:
        slow, other = Stand(slow_s=1.5), Stand(slow_s=1.5)
        async with behind(slow, other) as endpoints:
            assert await asyncio.gather(*(ask(endpoints, 20.0) for _ in range(4))) == [200] * 4
            assert (slow.asked, other.asked) == (2, 2)
            assert all(endpoint.is_up for endpoint in endpoints.all)

    played(main)


def test_a_request_that_silences_servers_is_not_sent_for_ever() -> None:
    async def main() -> None:
        stands = [Frozen() for _ in range(5)]
        asked = Counter[int]()

        async def dies(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST"):
                asked[number] += 1
                stands[number].goes_on.clear()
            await stands[number].goes_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        for number, stand in enumerate(stands):
            stand._answer = lambda reader, writer, number=number: dies(number, reader, writer)  # type: ignore[method-assign, misc]
        async with behind(*stands) as endpoints:
            asking = asyncio.create_task(ask(endpoints, 20.0))
            await once(lambda: sum(asked.values()) == 3)
            await once(lambda: len(endpoints.up()) == 2)
            await asyncio.sleep(0.3)
            assert sum(asked.values()) == 3 and not asking.done()
            asking.cancel()

    played(main)


def test_a_request_of_a_sequence_stays_where_its_state_is() -> None:
    async def main() -> None:
        stands = Frozen(), Frozen()
        async with behind(*stands) as endpoints:
            endpoint = endpoints._keeper("s", set())
            assert endpoint is not None
            keeper = next(each for each in stands if each.port == endpoint.upstream.address.port)
            keeper.goes_on.clear()
            asking = asyncio.create_task(ask(endpoints, 20.0, "s"))
            await once(lambda: not endpoint.is_up)
            await asyncio.sleep(0.3)
            assert not asking.done()
            keeper.goes_on.set()
            assert await asking == 200
            assert [stand.asked for stand in stands if stand is not keeper] == [0]

    played(main)


def test_readiness_is_told_although_one_is_silent() -> None:
    """Within the second that who asks has for it, as Kubernetes does unless it is told otherwise."""

    async def main() -> None:
        silent, other = Frozen(), Stand()
        async with behind(silent, other) as endpoints:
            readiness = Readiness(endpoints)
            assert (await readiness.report()).servers == (True, True)
            silent.goes_on.clear()
            readiness._looked = 0.0
            began = time.monotonic()
            assert (await readiness.report()).status == 200
            assert time.monotonic() - began < 0.9
            await once(lambda: not endpoints.all[0].is_up)
            assert (await readiness.report()).servers == (False, True)
            silent.goes_on.set()
            await once(lambda: endpoints.all[0].is_up)

    presence.LOOK_S = 2.0
    played(main)


def test_an_address_where_packets_vanish_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port takes no more connections, and does not say so: what is sent there is dropped."""
    import socket

    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    held = []
    for _ in range(3):
        held.append(socket.socket())
        held[-1].setblocking(False)
        held[-1].connect_ex(full.getsockname())

    async def main() -> None:
        other = Stand()
        await other.start()
        endpoints = Endpoints([Upstream(Address("127.0.0.1", full.getsockname()[1])), other.upstream])
        hurried = await asyncio.gather(*(ask(endpoints, 0.3) for _ in range(4)), return_exceptions=True)
        assert hurried.count(200) == 2  # the others had gone where nothing is
        assert await asyncio.gather(*(ask(endpoints, 10.0) for _ in range(8))) == [200] * 8
        await once(lambda: endpoints.all[0].is_silent)
        await endpoints.close()
        await other.stop()

    try:
        played(main)
    finally:
        for each in (full, *held):
            each.close()


def test_a_process_that_has_no_files_left_calls_no_server_gone() -> None:
    """Its callers are told to come back, and the next one that finds room is answered."""

    async def main() -> None:
        other = Stand()
        async with behind(other) as endpoints:
            assert await ask(endpoints) == 200
            limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
            resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/proc/self/fd").iterdir()]) + 8, limits[1]))
            try:
                with suppress(OSError):
                    while True:
                        held.append(os.open("/dev/null", os.O_RDONLY))
                with pytest.raises(FullError, match="Too many open files"):
                    await ask(endpoints)
                assert (await Readiness(endpoints).report()).status == 200
            finally:
                for each in held:
                    os.close(each)
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert endpoints.all[0].is_up
            assert await ask(endpoints) == 200

    played(main)
