"""A caller: one client that sends one image to one model, from threads or from asyncio, and is timed.

Run as a program, this file is the worker of `python -m benchmarks client --against DIRECTORY`: it takes whichever
`clients` package PYTHONPATH names, so it imports nothing else of ours, and may only use what older clients have.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from clients import AsyncClient, Client

MODEL, OUTPUT = "fashion", "label"
KINDS = ("threads", "asyncio")
MAX_AT_ONCE = 32


class Caller(Protocol):
    """A client that can be timed."""

    def label(self) -> str:
        """Send one request; return the label that it is answered."""

    def latency_s(self) -> float:
        """Send one request; return how long it took."""

    def per_s(self, at_once: int, seconds: float) -> float:
        """Keep that many requests under way for so long; return how many were answered a second."""


class ThreadCaller:
    """A blocking client, from the threads of `pool`."""

    def __init__(self, call: Callable[[], bytes], pool: ThreadPoolExecutor) -> None:
        self._call, self._pool = call, pool

    def label(self) -> str:
        return self._call().decode()

    def latency_s(self) -> float:
        began = time.perf_counter()
        self._call()
        return time.perf_counter() - began

    def per_s(self, at_once: int, seconds: float) -> float:
        until = time.perf_counter() + seconds

        def work() -> int:
            count = 0
            while time.perf_counter() < until:
                self._call()
                count += 1
            return count

        return sum(done.result() for done in [self._pool.submit(work) for _ in range(at_once)]) / seconds


class AsyncCaller:
    """An asyncio client, in the event loop of `runner`."""

    def __init__(self, call: Callable[[], Awaitable[bytes]], runner: asyncio.Runner) -> None:
        self._call, self._runner = call, runner

    def label(self) -> str:
        async def ask() -> bytes:
            return await self._call()

        return self._runner.run(ask()).decode()

    def latency_s(self) -> float:
        async def timed() -> float:
            began = time.perf_counter()
            await self._call()
            return time.perf_counter() - began

        return self._runner.run(timed())

    def per_s(self, at_once: int, seconds: float) -> float:
        async def work(until: float) -> int:
            count = 0
            while time.perf_counter() < until:
                await self._call()
                count += 1
            return count

        async def work_all() -> int:
            until = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(work(until) for _ in range(at_once))))

        return self._runner.run(work_all()) / seconds


@contextmanager
def library_caller(url: str, kind: str, image: bytes) -> Iterator[Caller]:
    """Connect the client library, to call from "threads" or "asyncio"."""
    inputs = {"image": [[image]]}
    if kind == "threads":
        with Client(url) as client, ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            yield ThreadCaller(lambda: bytes(client.infer(MODEL, inputs, outputs=[OUTPUT])[OUTPUT][0, 0]), pool)
        return

    async def connect() -> AsyncClient:
        return AsyncClient(url)

    with asyncio.Runner() as runner:
        aio = runner.run(connect())

        async def call() -> bytes:
            return bytes((await aio.infer(MODEL, inputs, outputs=[OUTPUT]))[OUTPUT][0, 0])

        try:
            yield AsyncCaller(call, runner)
        finally:
            runner.run(aio.close())


def main() -> None:
    """Do what standard input asks of a caller, a JSON array a line; the answers go to standard output, one a line."""
    url, kind, image = json.loads(sys.stdin.readline())
    with library_caller(url, kind, base64.b64decode(image)) as caller:
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            print(json.dumps(getattr(caller, method)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
