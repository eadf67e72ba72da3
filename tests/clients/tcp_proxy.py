"""A real TCP proxy between a client and a real server, which can be told to misbehave."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_CHUNK = 65536


class TcpProxy:
    """Passes bytes on, in both directions. What is set holds for what comes from then on, also on open connections.

    Attributes:
        delay_s: Before each chunk of an answer.
        change: What becomes of a chunk of an answer; b"" and the connection is cut.
        drip_s: Answers come a byte at a time, with such a pause between them; None: as they are.
        see: Is shown each chunk of a request.
        connections: How many there were.
        cut_connections: How many of them `cut` ended.
        silenced: So many of them, the oldest, pass nothing any more, and do not end.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self.delay_s, self.connections, self.cut_connections, self.silenced = 0.0, 0, 0, 0
        self.drip_s: float | None = None
        self.change: Callable[[bytes], bytes] = lambda chunk: chunk
        self.see: Callable[[bytes], object] = lambda chunk: None
        self._flows = threading.Event()
        self._flows.set()
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stall(self) -> None:
        """No byte passes any more, in either direction, and no connection ends."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def close(self) -> None:
        """Accept no more connections, and end every open one."""
        self._loop.call_soon_threadsafe(lambda: self._server.close())
        self.cut()

    def cut(self) -> None:
        """End every open connection, with a reset."""

        def abort() -> None:
            self.cut_connections += len(self._writers) // 2  # to the client, and to the server
            for writer in self._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    async def serve(self, ready: threading.Event) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()  # until it is cancelled
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:  # like the server itself, if it were gone
            writer.transport.abort()
            return
        ends = {writer, up_writer}
        self._writers |= ends
        try:
            await asyncio.gather(
                self._pump(reader, up_writer, number, answers=False),
                self._pump(up_reader, writer, number, answers=True),
            )
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                while not self._flows.is_set() or number <= self.silenced:
                    await asyncio.sleep(0.01)
                if not answers:
                    self.see(chunk)
                else:
                    await asyncio.sleep(self.delay_s)
                    chunk = self.change(chunk)
                    if not chunk:
                        break
                for piece in _pieces(chunk) if answers and self.drip_s else [chunk]:
                    writer.write(piece)
                    await writer.drain()
                    if answers and self.drip_s:
                        await asyncio.sleep(self.drip_s)
        writer.transport.abort()


@contextmanager
def tcp_proxy(upstream: str) -> Iterator[TcpProxy]:
    """A proxy before host:port for as long as the block runs."""
    proxy, ready = TcpProxy(upstream), threading.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def run() -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        await proxy.serve(ready)

    thread = threading.Thread(target=proxy._loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(5)
    try:
        yield proxy
    finally:
        proxy.flow()
        proxy._loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(5)


def _pieces(chunk: bytes) -> list[bytes]:
    return [chunk[i : i + 1] for i in range(len(chunk))]
