"""A request to infer: read strictly, let through, passed on, answered."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.brain.decide import MOST_SAMPLED, TRACEBACK, Admitted, Brain
from gateway.deadline import HEADER as TIMEOUT
from gateway.deadline import passed
from gateway.errors import LateError, Refusal, UpstreamError
from gateway.outcome import Asked
from gateway.raw import fits, header, replies, sequences, strict
from gateway.raw.body import Body, Limits, Receive, too_large
from gateway.raw.header import MOST_BYTES, Request
from gateway.raw.headers import LENGTH, Given
from gateway.raw.paths import Path
from gateway.raw.replies import Send
from gateway.raw.strict import refused
from gateway.triton.upstream import Answer


@dataclass
class Sending:
    """A request that was read: its JSON, and of its tensors what is here already."""

    request: Request
    rows: int
    body: Body
    tensors: bytes | None  # None: they are streamed
    sample: bytearray | None = None  # what was sent to Triton, where it is to be kept

    def content(self, json: bytes) -> bytes | AsyncIterator[bytes]:
        """Return all that goes to Triton."""
        if self.tensors is None:
            return self._streamed(json)
        if self.sample is not None:
            self.sample += json + self.tensors
        return json + self.tensors

    async def _streamed(self, json: bytes) -> AsyncIterator[bytes]:
        if self.sample is not None:
            self.sample += json
        yield json
        strings = fits.Strings.of(self.request)
        async for piece in self.body.pieces(self.request.tensor_bytes):
            if strings is not None:
                strings.feed(piece)
            if self.sample is not None:
                self.sample += piece
            yield piece


@dataclass(frozen=True)
class Call:
    """A request as it arrives, and the way back."""

    path: Path
    given: Given
    request_id: str
    receive: Receive
    send: Send
    answer: replies.Answer


async def infer(brain: Brain, limits: Limits, call: Call) -> None:
    """Answer it.

    Raises:
        Refusal: it gets no answer of a model.
        CallerGone: nobody waits for one.
    """
    arrived = time.monotonic()
    path, given, request_id = call.path, call.given, call.request_id
    caller = await brain.access.check(given.authorization)
    deadline = brain.deadline(given.values.get(TIMEOUT))
    model = await brain.model(caller, path.model, path.version, "infer", deadline)
    json_length = given.json_length
    body = Body(call.receive, given.content_length, limits, deadline)
    request = header.read(await body.take(json_length))
    rows = fits.check(request, model)
    sending = await _read(request, rows, body, json_length, given, limits)
    asked = Asked(
        *("raw", path.model, path.version or None, "infer", rows, request.priority, deadline, request_id),
        traceparent=given.values.get("traceparent"),
        arrived=arrived,
    )
    async with brain.admitted(caller, asked, model) as admitted:
        admitted.outcome.inputs = _summary(request)
        admitted.outcome.caller_id = request.id or given.values.get("x-request-id")
        if request.tensor_bytes <= MOST_SAMPLED and brain.samples.chosen(path.model, request_id):
            sending.sample = bytearray()
        asks = request.priority is not None or admitted.priority != 2
        sequence = sequences.own(caller, model, request.sequence)
        json = request.written(admitted.triton_timeout_us, admitted.priority if asks else None, sequence)
        headers = {"Inference-Header-Content-Length": str(len(json)), **admitted.trace_headers}
        if sending.tensors is None:
            headers["Content-Length"] = str(len(json) + request.tensor_bytes)
        keeper = None if sequence is None else f"{path.model} {sequence}"
        async with await admitted.infer(headers, sending.content(json), keeper) as answer:
            await _pass_on(answer, admitted, call, limits.pause_s, sampled=sending.sample is not None)
        if sending.sample is not None:
            kept = (path.model, request_id, admitted.outcome.began_ns, bytes(sending.sample))
            admitted.outcome.payload = await asyncio.to_thread(brain.samples.keep, *kept)


async def _read(request: Request, rows: int, body: Body, json_length: int, given: Given, limits: Limits) -> Sending:
    """Wait for the tensors if they are small, so that no place is held for a caller that dawdles."""
    size = request.tensor_bytes
    if json_length + size > limits.most_bytes:
        raise too_large(limits)
    if given.content_length not in (None, json_length + size):
        raise refused("the inputs' binary_data_size and the length of the body contradict each other")
    if size > limits.whole_bytes:
        return Sending(request, rows, body, None)
    tensors = await body.take(size)
    await body.end()
    if (strings := fits.Strings.of(request)) is not None:
        strings.feed(tensors)
    return Sending(request, rows, body, tensors)


async def _pass_on(answer: Answer, admitted: Admitted, call: Call, pause_s: float, *, sampled: bool) -> None:
    """Pass an answer on, recorded before; after it, where it is streamed or the whole input is yet to be kept."""
    headers = {"x-request-id": call.request_id, **admitted.headers, "server-timing": admitted.outcome.timing()}
    if answer.status != 200:
        await _pass_on_error(answer, admitted, headers, call.send, sampled=sampled)
        return
    for name in ("content-type", "content-length", LENGTH):
        if name in answer.headers:
            headers[name] = answer.headers[name]
    whole = answer.whole()
    if whole is None:
        await _stream(answer, admitted, headers, call.send, pause_s)
        return
    admitted.outcome.outputs = _outputs(whole, answer.headers.get(LENGTH))
    answer.release()
    if not sampled:
        admitted.record()
    headers["content-length"] = str(len(whole))
    if not call.answer(200, headers, whole):
        await replies.start(call.send, 200, headers)
        await call.send({"type": "http.response.body", "body": whole})


async def _stream(answer: Answer, admitted: Admitted, headers: dict[str, str], send: Send, pause_s: float) -> None:
    """Pass an answer on that is longer than what was here at once.

    It begins before the deadline; then neither Triton nor its reader may hold it up for longer than `pause_s` more.
    """
    stop = admitted.deadline.at + pause_s
    begun = False
    try:
        async with asyncio.timeout_at(admitted.deadline.at) as limit:
            async for piece in answer.pieces(stop):
                if not begun:
                    begun = True
                    limit.reschedule(stop)
                    admitted.outcome.outputs = _outputs(piece, answer.headers.get(LENGTH))
                    await replies.start(send, 200, headers)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    except (TimeoutError, LateError) as error:
        if begun:
            raise
        raise passed() from error
    except UpstreamError as error:
        if begun:
            raise
        detail = "the server behind the gateway began an answer, and broke off"
        raise Refusal(502, "bad-answer", "The server gave no answer", detail) from error
    if not begun:
        raise Refusal(502, "bad-answer", "The server gave no answer", "the server behind the gateway answered nothing")
    await send({"type": "http.response.body", "body": b""})


async def _pass_on_error(
    answer: Answer, admitted: Admitted, headers: dict[str, str], send: Send, *, sampled: bool
) -> None:
    """Pass on what Triton says of a request that failed, without the traceback of a model's code."""
    said: Any = None
    with suppress(UpstreamError, ValueError, AttributeError):
        said = strict.parse_answer(await answer.read(MOST_BYTES)).get("error")
    if answer.status == 503:
        headers["Retry-After"] = "1"
    message = str(said or f"HTTP status {answer.status}").partition(TRACEBACK)[0]
    if not sampled:
        admitted.record()
    await replies.reply(send, answer.status, strict.write({"error": message}), headers)


def _summary(request: Request) -> dict[str, Any]:
    return {sent.name: {"datatype": sent.datatype, "shape": list(sent.shape)} for sent in request.inputs}


def _outputs(content: bytes, json_length: str | None) -> dict[str, Any] | None:
    """Return what an answer says of its outputs, where that is before its tensors and short."""
    if json_length is None or not json_length.isdecimal() or int(json_length) > min(MOST_BYTES, len(content)):
        return None
    with suppress(ValueError, KeyError, TypeError):
        said = strict.parse_answer(content[: int(json_length)])
        return {each["name"]: {"datatype": each["datatype"], "shape": each["shape"]} for each in said["outputs"]}
    return None
