"""tritonclient as a caller: what the client library is compared with."""

import asyncio
import importlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tritonclient.utils import np_to_triton_dtype

from benchmarks.calling.callers import MAX_AT_ONCE, Arrays, AsyncCaller, Caller, Question, ThreadCaller
from deploy.neighbours import direct

_TIMEOUT_S = 10.0  # the library's default
_DIRECT: dict[str, dict[str, Any]] = {"http": {}, "grpc": {"channel_args": direct.GRPC_OPTIONS}}  # HTTP heeds no proxy


@contextmanager
def tritonclient_caller(
    protocol: str, address: str, kind: str, question: Question, *, same_request: bool
) -> Iterator[Caller]:
    """Connect tritonclient, to call from "threads" or "asyncio".

    Args:
        same_request: Send what the library sends: an id, a deadline, and the deadline as the queue timeout.
    """
    triton = importlib.import_module(f"tritonclient.{protocol}")
    options = _options(protocol) if same_request else dict
    if kind == "threads":
        own = threading.local()  # tritonclient's HTTP client may not be shared

        def call() -> Arrays:
            if not hasattr(own, "client"):
                own.client = triton.InferenceServerClient(address, **_DIRECT[protocol])
            inputs, outputs = _request(triton, question)
            return _arrays(own.client.infer(question.model, inputs, outputs=outputs, **options()))

        with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            yield ThreadCaller(call, pool)
        return
    aio = importlib.import_module(f"tritonclient.{protocol}.aio")

    async def connect() -> Any:
        return aio.InferenceServerClient(address, **_DIRECT[protocol])

    with asyncio.Runner() as runner:
        client = runner.run(connect())

        async def call_async() -> Arrays:
            inputs, outputs = _request(triton, question)
            return _arrays(await client.infer(question.model, inputs, outputs=outputs, **options()))

        try:
            yield AsyncCaller(call_async, runner)
        finally:
            runner.run(client.close())


def _request(triton: Any, question: Question) -> tuple[list[Any], list[Any] | None]:
    """Make a request of arrays: work that every caller has to do."""
    inputs = []
    for name, values in question.inputs.items():
        inputs.append(triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        inputs[-1].set_data_from_numpy(values)
    return inputs, [triton.InferRequestedOutput(name) for name in question.outputs] or None


def _options(protocol: str) -> Callable[[], dict[str, Any]]:
    """Make the options by which a request is the library's. tritonclient's HTTP clients take no deadline."""
    with_a_deadline = {"client_timeout": _TIMEOUT_S} if protocol == "grpc" else {}
    return lambda: {"request_id": uuid.uuid4().hex, "timeout": round(_TIMEOUT_S * 1e6), **with_a_deadline}


def _arrays(result: Any) -> Arrays:
    """Make arrays of an answer: the same."""
    response = result.get_response()
    names = (
        [o["name"] for o in response["outputs"]] if isinstance(response, dict) else [o.name for o in response.outputs]
    )
    return {name: result.as_numpy(name) for name in names}
