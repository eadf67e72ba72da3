"""What the gateway's own HTTP towards Triton does, against a real one."""

import asyncio
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from gateway.errors import BrokenError, GoneError, LateError
from gateway.triton.address import Address, AddressError
from gateway.triton.models import Model, Models
from gateway.triton.upstream import Upstream
from tests.conftest import free_ports
from tests.deploy.echoes import LENGTH, PIXELS, WORDS, Echo, answer
from tests.gateway.tritons import Running


async def asked(upstream: Upstream, echo: Echo, timeout_s: float = 30, *, pieces: int = 0) -> bool:
    """Whether the echo came back; its body as bytes, or in so many pieces."""
    header = echo.header()
    body, headers = header + echo.content, {LENGTH: str(len(header))}

    async def streamed() -> AsyncIterator[bytes]:
        size = -(-len(body) // pieces)
        for start in range(0, len(body), size):
            yield body[start : start + size]
            await asyncio.sleep(0)

    if pieces:
        headers["Content-Length"] = str(len(body))
    deadline = time.monotonic() + timeout_s
    async with await upstream.infer(echo.path, headers, streamed() if pieces else body, deadline) as said:
        content = await said.read(100_000_000)
        return answer(said.status, content, int(said.headers.get(LENGTH.lower(), len(content)))).is_echo_of(echo)


def seconds(value: float) -> tuple[bytes, dict[str, str]]:
    """A request to the sleeper."""
    import struct

    header = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    return header + struct.pack("<f", value), {LENGTH: str(len(header))}


def test_echoes_come_back_over_one_connection_that_is_kept(triton: Running) -> None:
    async def main() -> int:
        upstream = Upstream(triton.address)
        for _ in range(20):
            assert (
                await asked(upstream, PIXELS)
                and await asked(upstream, WORDS)
                and await asked(upstream, PIXELS, pieces=7)
            )
        open_now = [c for c in psutil.Process().net_connections() if c.raddr and c.raddr.port == triton.address.port]
        upstream.close()
        return len(open_now)

    assert asyncio.run(main()) == 1


def test_many_at_once_get_their_own_answers(triton: Running) -> None:
    async def main() -> None:
        upstream = Upstream(triton.address)
        echoes = [
            Echo("words", (1, 1), len(text).to_bytes(4, "little") + text, "BYTES")
            for text in (f"{n}".encode() for n in range(300))
        ]
        assert all(await asyncio.gather(*(asked(upstream, echo) for echo in echoes)))
        upstream.close()

    asyncio.run(main())


def test_ten_megabytes_go_and_come_in_pieces(triton: Running) -> None:
    text = bytes(range(256)) * 40_000
    big = Echo("words", (1, 1), len(text).to_bytes(4, "little") + text, "BYTES")

    async def main() -> None:
        upstream = Upstream(triton.address)
        header = big.header()

        async def streamed() -> AsyncIterator[bytes]:
            yield header
            for start in range(0, len(big.content), 65536):
                yield big.content[start : start + 65536]

        headers = {LENGTH: str(len(header)), "Content-Length": str(len(header) + len(big.content))}
        got, most = 0, 0
        async with await upstream.infer(big.path, headers, streamed(), time.monotonic() + 30) as said:
            async for piece in said.pieces():
                got += len(piece)
                most = max(most, len(piece))
                await asyncio.sleep(0)
        assert got > len(text) and most < 300_000
        upstream.close()

    asyncio.run(main())


def test_a_unix_socket_is_as_good(neighbour: Running) -> None:
    async def main() -> None:
        upstream = Upstream(neighbour.address)
        assert await asked(upstream, PIXELS) and await asked(upstream, WORDS, pieces=3)
        upstream.close()

    asyncio.run(main())


def test_a_deadline_ends_the_wait_and_the_connection(triton: Running) -> None:
    async def main() -> None:
        upstream = Upstream(triton.address)
        body, headers = seconds(1.0)
        began = time.monotonic()
        with pytest.raises(LateError):
            await upstream.infer("/v2/models/sleeper/infer", headers, body, began + 0.2)
        assert time.monotonic() - began < 0.6
        assert (upstream.in_flight, upstream.unwanted) == (0, 1)
        assert await asked(upstream, PIXELS)
        upstream.close()

    asyncio.run(main())


def test_many_that_ran_out_of_time_leave_nothing_behind() -> None:
    """More of them than there are places: no place is lost, no connection stays, and the next one is answered."""

    async def main() -> None:
        async def answer_at_last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said = await reader.read(1000)
            if b"/last" in said:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer_at_last, "127.0.0.1", 0, backlog=1000)
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        upstream = Upstream(address)
        late = await asyncio.gather(
            *(upstream.get("/", time.monotonic() + 0.1 + n / 1000) for n in range(400)), return_exceptions=True
        )
        assert {type(each) for each in late} == {LateError}
        async with await upstream.get("/last", time.monotonic() + 5) as answer:
            assert await answer.read() == b"ok"
        upstream.close()
        await asyncio.sleep(0.05)
        ours = [c for c in psutil.Process().net_connections() if c.raddr and c.raddr.port == address.port]
        assert (upstream.in_flight, ours) == (0, [])
        server.close()

    asyncio.run(main())


def test_nobody_there_is_said_at_once() -> None:
    async def main() -> None:
        [port, *_] = free_ports()
        with pytest.raises(GoneError, match="cannot be reached"):
            await Upstream(Address("127.0.0.1", port)).get("/v2", time.monotonic() + 5)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", GoneError),
        (b"SSH-2.0-OpenSSH\r\n", BrokenError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", BrokenError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", BrokenError),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", BrokenError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", BrokenError),
    ],
    ids=["nothing", "no HTTP", "half", "a negative length", "many headers", "no chunk"],
)
def test_what_is_no_answer_is_an_error(said: bytes, error: type[Exception]) -> None:
    async def main() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        upstream = Upstream(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
        with pytest.raises(error):
            async with await upstream.get("/v2", time.monotonic() + 5) as answer:
                await answer.read()
        assert upstream.in_flight == 0
        server.close()

    asyncio.run(main())


def test_a_model_is_described_as_it_is_served(triton: Running) -> None:
    async def main() -> tuple[Model | None, Model | None]:
        upstream = Upstream(triton.address)
        models = Models(upstream.get)
        found = await models.get("pixels"), await models.get("none-such")
        assert await models.get("pixels", "7") is None
        upstream.close()
        return found

    pixels, nothing = asyncio.run(main())
    assert nothing is None and pixels is not None
    assert (pixels.release, pixels.max_batch_size) == ("1", 8)
    assert (pixels.input["IN"].datatype, pixels.input["IN"].dims) == ("UINT8", (1, 2, 2))


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("localhost", "localhost:8000"),
        ("http://triton:80/", "triton:80"),
        ("[::1]:8000", "[::1]:8000"),
        ("unix:/run/t.sock", "unix:/run/t.sock"),
    ],
)
def test_an_address_is_read(text: str, means: str) -> None:
    assert str(Address.of(text)) == means


@pytest.mark.parametrize("text", ["", "unix:relative", "https://x:1", "host:0", "host:x", "::1:8000", "a@b:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        Address.of(text)
