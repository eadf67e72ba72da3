"""Made-up requests: none ends the gateway, none without a key reaches Triton, none gets another's answer."""

import asyncio
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import httptools
import pytest

from gateway.raw.body import Limits
from gateway.running.connections import Guard
from tests.deploy import mutants
from tests.deploy.echoes import LENGTH, PIXELS, Echo, answer
from tests.deploy.mutants import Mutant
from tests.gateway.served import Gateway, faults, gateway
from tests.gateway.tritons import Running

SHORT = 800
LONG = int(os.environ.get("FUZZED", "100_000"))
_AT_ONCE = 256  # connections: many of them wait for what does not come
_KEY = "Authorization: Bearer gk_all\r\n"
_CLASSES = re.compile(rb"([\x03-\x05]\0\0\0\d+:\d)+", re.DOTALL)
_NUMBERS = (
    "0",
    "-1",
    "-0",
    "+8",
    "1e3",
    "0x10",
    " 8",
    "8 ",
    "8,8",
    "",
    "9" * 25,
    str(2**31),
    str(2**32),
    str(2**63),
    str(2**64),
)
_LINES = (
    "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding:\tchunked\r\n", "Transfer-Encoding : chunked\r\n", "transfer-encoding: xchunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "Content-Length: 0\r\n", "Content-Length: 3\r\n",
    "Connection: close\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n", "Expect: 100-continue\r\n", "Expect: x\r\n",
    "Authorization: Bearer gk_pixels\r\n", "Authorization: Basic eDp5\r\n", " folded\r\n",
    ": x\r\n", "x\r\n", "\r\n", "\n",
    "X-Request-ID: a\x00b\r\n", "traceparent: 00-x\r\n", "Request-Timeout-Ms: -5\r\n", "Content-Encoding: gzip\r\n",
    "X-Original-URI: /v2/health/live\r\n", "Trailer: Authorization\r\n",
)  # fmt: skip
_TARGETS = (
    "/v2/models/words/infer", "/v2/models/pixels/versions/1/infer", "/v2/models/pixels/versions/-1/infer",
    "/v2/models/x/infer",
    "/v2/models/pixels%2Finfer", "/v2/models/pixels/infer#x", "/v2/models/pixels/infer?x", "http://a/v2/models/pixels/infer",
    "//v2/models/pixels/infer", "/v2/models/../v2/models/pixels/infer", "/v2/repository/index", "*", "/", "",
    "/v2/models/pixels/infer HTTP/1.1\r\nHost: y\r\n\r\nPOST /v2/models/pixels/infer", "/v2/models/pixels\x00/infer",
)  # fmt: skip


@dataclass(frozen=True)
class Fuzzed:
    """What is sent on a connection: a request that was changed, and an ordinary one behind it."""

    sent: bytes
    has_key: bool
    changed: Echo | None  # what a reader takes it for, if it is one at all
    behind: Echo
    is_valid: bool  # nothing in it was changed but its JSON, if anything


class Answers:
    """Reads what comes back on a connection."""

    def __init__(self) -> None:
        self.found: list[tuple[int, dict[str, str], bytes]] = []
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) >= 200:
            self.found.append((status, self._headers, self._body))
        self._headers, self._body = {}, b""


def fuzzed(chance: random.Random, number: int) -> Fuzzed:
    """The request of this number: its own content is in nobody else's."""
    mutant = mutants.over_http(chance)
    has_key = chance.random() < 0.7
    head, body, valid = _head(mutant, has_key), mutant.body, True
    if chance.random() < 0.7:
        valid = False
        head, body = _changed(chance, head, body)
    behind = Echo("pixels", (2, 1, 2, 2), number.to_bytes(8, "little"), "UINT8")
    text = behind.header()
    content = text + behind.content
    ordinary = f"POST {behind.path} HTTP/1.1\r\nHost: x\r\n{_KEY}{LENGTH}: {len(text)}\r\n"
    ordinary += f"Content-Length: {len(content)}\r\n\r\n"
    has_key = has_key or b"Bearer gk_pixels" in head  # a line that was put in
    return Fuzzed(head + body + ordinary.encode() + content, has_key, mutant.read(), behind, valid)


def _head(mutant: Mutant, has_key: bool) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in mutant.headers.items())
    lines += f"{_KEY if has_key else ''}Content-Length: {len(mutant.body)}\r\n"
    return f"POST /v2/models/{mutant.model}/infer HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


def _changed(chance: random.Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    text = head.decode()
    match chance.randrange(7):
        case 0:
            lines = text.split("\r\n")
            lines.insert(chance.randint(1, len(lines) - 2), chance.choice(_LINES).removesuffix("\r\n"))
            text = "\r\n".join(lines)
        case 1:
            at = text.index("Content-Length: ") + len("Content-Length: ")
            text = text[:at] + chance.choice(_NUMBERS) + text[text.index("\r\n", at) :]
        case 2:
            text = text.replace(text.split()[1], chance.choice(_TARGETS), 1)
        case 3:
            text = text.replace(
                "POST", chance.choice(("GET", "PUT", "post", "OPTIONS", "CONNECT", "P\0ST", "POST POST")), 1
            )
        case 4:  # in chunks, odd ones
            at = text.index("Content-Length: ")
            text = text[:at] + "Transfer-Encoding: chunked" + text[text.index("\r\n", at) :]
            return text.encode(), _chunks(chance, body)
        case 5:
            return _flipped(chance, head), body
        case _:
            body = body[: chance.randint(0, len(body))] if chance.random() < 0.5 else body + chance.randbytes(9)
    return text.encode(), body


def _chunks(chance: random.Random, body: bytes) -> bytes:
    made, at = b"", 0
    while at < len(body):
        size = chance.randint(1, 60)
        piece, at = body[at : at + size], at + size
        told = chance.choice(
            (f"{len(piece):x}",) * 12 + ("-1", "0x5", "", "FFFFFFFFFFFFFFFFF", f"{len(piece):x};a=b", "0", "5 5")
        )
        made += (
            told.encode()
            + chance.choice((b"\r\n",) * 12 + (b"\n", b"\r"))
            + piece
            + chance.choice((b"\r\n",) * 12 + (b"",))
        )
    return made + chance.choice(
        (b"0\r\n\r\n",) * 6 + (b"0\r\n" + _KEY.encode() + b"\r\n", b"00\r\n\r\n", b"0\r\n", b"")
    )


def _flipped(chance: random.Random, head: bytes) -> bytes:
    changed = bytearray(head)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(changed))
        if chance.random() < 0.5:
            changed[at] ^= 1 << chance.randrange(8)
        else:
            changed[at:at] = chance.randbytes(chance.choice((1, 2)))
    return bytes(changed)


async def told(port: int, sent: bytes) -> Answers:
    """What comes back until the connection is closed, or two answers are there, or nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = Answers()
    try:
        writer.write(sent)
        while len(answers.found) < 2 and (data := await asyncio.wait_for(reader.read(65536), 60)):
            answers.feed(data)
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return answers


def check(asked: Fuzzed, answers: Answers) -> Iterator[str]:
    """What became of it; fails where an answer is another's."""
    expected = [asked.changed if asked.has_key else None, asked.behind]
    for status, headers, body in answers.found:
        assert status < 500, (asked, status, body)
        if status != 200 or LENGTH.lower() not in headers:
            yield f"{status}"
            continue
        got = answer(status, body, int(headers[LENGTH.lower()]))
        while expected and not _may_be(got, expected[0], asked):
            expected.pop(0)
        assert expected, f"an answer to nothing that was sent here: {asked} {got}"
        expected.pop(0)
        yield "answered"


def _may_be(got: Any, echo: Echo | None, asked: Fuzzed) -> bool:
    """Whether it is this one's: content and shape, or its content alone where classes or JSON were asked for."""
    if echo is None:
        return False
    content = _content(got)
    if got.is_echo_of(echo) or content.search(echo.content):
        return True
    # A body that was cut goes on with the first bytes of the request behind it.
    return echo is asked.changed and not asked.is_valid and content.search(asked.sent) is not None


def _content(got: Any) -> re.Pattern[bytes]:
    """What its tensor was: of classes, "214:1" is that the pixel of number 1 is 214, and not all need be there."""
    classes = re.findall(rb"(?s)....(\d+):(\d)", got.content) if re.fullmatch(_CLASSES, got.content) else []
    if not classes:
        return re.compile(re.escape(got.content), re.DOTALL)
    row = len(classes) // got.shape[0]
    pixels = [b"."] * 4 * got.shape[0]
    for number, (value, place) in enumerate(classes):
        pixels[number // row * 4 + int(place)] = re.escape(bytes([int(value)]))
    return re.compile(b"".join(pixels), re.DOTALL)


def executed(triton: Running) -> int:
    """How many requests Triton has seen for the two models, answered or not."""
    found = 0
    for model in ("pixels", "words"):
        with urlopen(f"http://{triton.address}/v2/models/{model}/stats") as said:
            [stats] = json.load(said)["model_stats"]
        found += stats["inference_stats"]["success"]["count"] + stats["inference_stats"]["fail"]["count"]
    return found


def fuzz(door: Gateway, triton: Running, cases: Sequence[Fuzzed]) -> "Counter[str]":
    """Send them all, a few at a time."""
    before, records = executed(triton), door.settled()
    counted: Counter[str] = Counter()

    async def main() -> None:
        waiting = iter(cases)

        async def one() -> None:
            for case in waiting:
                counted.update(check(case, await told(door.port, case.sent)))

        await asyncio.gather(*(one() for _ in range(_AT_ONCE)))

    asyncio.run(main())
    reached = [record for record in door.records[records:] if record["triton_ms"] is not None]
    assert executed(triton) - before <= door.settled() - records  # what Triton saw, the gateway let through
    assert {record["key"] for record in reached} <= {"all", "pixels"}
    assert door.brain.gate("pixels", "stable")[0].under_way == 0
    return counted


_QUICK: dict[str, Any] = {
    "limits": Limits(pause_s=0.3), "guard": Guard(header_s=0.3, body_s=0.3, linger_s=0.3), "idle_s": 1
}  # fmt: skip


def test_made_up_requests_end_nothing_and_reach_nobody(triton: Running) -> None:
    chance = random.Random(2_027)  # the same each time; others, and many more, are the next test's
    with gateway(triton.address, **_QUICK) as door, faults() as found:
        counted = fuzz(door, triton, [fuzzed(chance, number) for number in range(SHORT)])
        assert not found
        assert counted["answered"] > SHORT / 4 and counted["400"] > SHORT / 10 and counted["401"] > SHORT / 20, counted
        assert door.raw(_plain(), timeout_s=1).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_made_up_requests(triton: Running) -> None:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10**9)))
    print(f"seed: {seed}")
    chance, counted = random.Random(seed), Counter[str]()
    with gateway(triton.address, **_QUICK) as door, faults() as found:
        for start in range(0, LONG, 2_000):
            counted += fuzz(door, triton, [fuzzed(chance, number) for number in range(start, start + 2_000)])
            assert not found
        assert door.raw(_plain(), timeout_s=1).startswith(b"HTTP/1.1 200")
    print(counted)


def _plain() -> bytes:
    header = PIXELS.header()
    head = f"POST {PIXELS.path} HTTP/1.1\r\nHost: x\r\n{_KEY}{LENGTH}: {len(header)}\r\n"
    return f"{head}Content-Length: {len(header) + 8}\r\n\r\n".encode() + header + PIXELS.content
