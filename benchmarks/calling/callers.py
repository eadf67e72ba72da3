"""A caller: one client that sends one request to one model, from threads or from asyncio, and is timed.

Run as a program, this file is the worker of `python -m benchmarks client --against DIRECTORY`: it takes whichever
`clients` package PYTHONPATH names, so it imports nothing else of ours, and may only use what older clients have.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clients import AsyncClient, Client

Arrays = Mapping[str, NDArray[Any]]
KINDS = ("threads", "asyncio")
MAX_AT_ONCE = 32


@dataclass(frozen=True)
class Question:
    """What is sent, over and over.

    Attributes:
        outputs: That are asked for; none: all of them.
    """

    model: str
    inputs: Arrays
    outputs: tuple[str, ...] = ()


class Caller(Protocol):
    """A client that can be timed."""

    def answer(self) -> Arrays:
        """Send one request; return the answer."""

    def latency_s(self) -> float:
        """Send one request; return how long it took."""

    def per_s(self, at_once: int, seconds: float) -> float:
        """Keep that many requests under way for so long; return how many were answered a second."""


class ThreadCaller:
    """A blocking client, from the threads of `pool`."""

    def __init__(self, call: Callable[[], Arrays], pool: ThreadPoolExecutor) -> None:
        self._call, self._pool = call, pool

    def answer(self) -> Arrays:
        return self._call()

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

    def __init__(self, call: Callable[[], Awaitable[Arrays]], runner: asyncio.Runner) -> None:
        self._call, self._runner = call, runner

    def answer(self) -> Arrays:
        async def ask() -> Arrays:
            return await self._call()

        return self._runner.run(ask())

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
def library_caller(url: str, kind: str, question: Question) -> Iterator[Caller]:
    """Connect the client library, to call from "threads" or "asyncio"."""
    model, inputs, outputs = question.model, question.inputs, [*question.outputs]
    if kind == "threads":
        with Client(url) as client, ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            yield ThreadCaller(lambda: client.infer(model, inputs, outputs=outputs), pool)
        return

    async def connect() -> AsyncClient:
        return AsyncClient(url)

    with asyncio.Runner() as runner:
        aio = runner.run(connect())

        async def call() -> Arrays:
            return await aio.infer(model, inputs, outputs=outputs)

        try:
            yield AsyncCaller(call, runner)
        finally:
            runner.run(aio.close())


def as_json(arrays: Arrays) -> dict[str, Any]:
    """Turn arrays into what json.dumps takes."""
    return {
        name: {"shape": [*values.shape], "texts": [base64.b64encode(text).decode() for text in values.ravel()]}
        if values.dtype == np.object_
        else {"shape": [*values.shape], "dtype": values.dtype.str, "raw": base64.b64encode(values.tobytes()).decode()}
        for name, values in arrays.items()
    }


def from_json(raw: Mapping[str, Any]) -> Arrays:
    """Undo `as_json`."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in raw.items():
        if "texts" in entry:
            arrays[name] = np.empty(len(entry["texts"]), np.object_)
            arrays[name][:] = [base64.b64decode(text) for text in entry["texts"]]
        else:
            arrays[name] = np.frombuffer(base64.b64decode(entry["raw"]), entry["dtype"])
        arrays[name] = arrays[name].reshape(entry["shape"])
    return arrays


def main() -> None:
    """Do what standard input asks of a caller, a JSON array a line; the answers go to standard output, one a line."""
    url, kind, model, inputs, outputs = json.loads(sys.stdin.readline())
    with library_caller(url, kind, Question(model, from_json(inputs), tuple(outputs))) as caller:
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            found = getattr(caller, method)(*arguments)
            print(json.dumps(as_json(found) if method == "answer" else found), flush=True)


if __name__ == "__main__":
    main()
