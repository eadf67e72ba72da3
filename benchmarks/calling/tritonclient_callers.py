"""tritonclient as a caller: what the client library is compared with."""

import asyncio
import importlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.calling.callers import MAX_AT_ONCE, MODEL, OUTPUT, AsyncCaller, Caller, ThreadCaller

_TIMEOUT_S = 10.0  # the library's default


@contextmanager
def tritonclient_caller(
    protocol: str, address: str, kind: str, image: bytes, *, same_request: bool
) -> Iterator[Caller]:
    """Connect tritonclient, to call from "threads" or "asyncio".

    Args:
        same_request: Send what the library sends: an id, a deadline, and the deadline as the queue timeout.
    """
    triton = importlib.import_module(f"tritonclient.{protocol}")
    options = _options(protocol) if same_request else dict
    if kind == "threads":
        own = threading.local()  # tritonclient's HTTP client may not be shared

        def call() -> bytes:
            if not hasattr(own, "client"):
                own.client = triton.InferenceServerClient(address)
            inputs, outputs = _request(triton, image)
            return _label(own.client.infer(MODEL, inputs, outputs=outputs, **options()))

        with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            yield ThreadCaller(call, pool)
        return
    aio = importlib.import_module(f"tritonclient.{protocol}.aio")

    async def connect() -> Any:
        return aio.InferenceServerClient(address)

    with asyncio.Runner() as runner:
        client = runner.run(connect())

        async def call_async() -> bytes:
            inputs, outputs = _request(triton, image)
            return _label(await client.infer(MODEL, inputs, outputs=outputs, **options()))

        try:
            yield AsyncCaller(call_async, runner)
        finally:
            runner.run(client.close())


def _request(triton: Any, image: bytes) -> tuple[list[Any], list[Any]]:
    """Make a request of an array: work that every caller has to do."""
    source = triton.InferInput("image", [1, 1], "BYTES")
    source.set_data_from_numpy(np.array([[image]], dtype=np.object_))
    return [source], [triton.InferRequestedOutput(OUTPUT)]


def _options(protocol: str) -> Callable[[], dict[str, Any]]:
    """Make the options by which a request is the library's. tritonclient's HTTP clients take no deadline."""
    with_a_deadline = {"client_timeout": _TIMEOUT_S} if protocol == "grpc" else {}
    return lambda: {"request_id": uuid.uuid4().hex, "timeout": round(_TIMEOUT_S * 1e6), **with_a_deadline}


def _label(result: Any) -> bytes:
    return bytes(result.as_numpy(OUTPUT)[0, 0])
