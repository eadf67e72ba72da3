"""Names that callers make up take no more memory, and move no model out."""

import asyncio
import json

import pytest

from gateway.triton import models
from gateway.triton.address import Address
from gateway.triton.models import Models
from gateway.triton.upstream import Upstream


def test_names_that_are_none_move_no_model_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MOST_KEPT", 4)
    asked: list[str] = []

    async def describe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            name = head.split()[1].decode().removeprefix("/v2/models/").removesuffix("/config")
            asked.append(name)
            known = {"name": name, "versions": ["1"], "max_batch_size": 0, "input": [], "output": []}
            status, found = (200, known) if name.startswith("real") else (404, {"error": "none"})
            said = json.dumps(found).encode()
            writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%s" % (status, len(said), said))

    async def main() -> None:
        server = await asyncio.start_server(describe, "127.0.0.1", 0)
        upstream = Upstream(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
        known = Models(upstream.get, fresh_s=30)
        for name in ("real-1", "real-2", "real-3"):
            assert await known.get(name)
        for number in range(20):
            assert await known.get(f"made-up-{number}") is None
        assert len(known._kept) == 4
        asked.clear()
        assert await known.get("real-1") and await known.get("real-2") and await known.get("real-3")
        assert asked == []
        assert await known.get("real-4") and await known.get("real-5")  # the one longest unasked goes
        assert await known.get("real-2") and asked == ["real-4"] * 2 + ["real-5"] * 2
        upstream.close()
        server.close()

    asyncio.run(main())
