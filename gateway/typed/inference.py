"""What the typed door asks a model: checked inputs become one request of the Open Inference Protocol, by the brain."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.errors import InvalidInputError
from clients.filling.entities import Entities
from contracts.entities import records
from contracts.errors import EntityError
from gateway.brain.decide import MOST_SAMPLED, TRACEBACK, Admitted, Brain
from gateway.caller import Caller
from gateway.deadline import Deadline, passed
from gateway.errors import BrokenError, LateError, Refusal
from gateway.outcome import Asked
from gateway.refusals import BAD_ANSWER, MODEL_FAILED, OVERLOADED, REJECTED, Fault, FaultyInput
from gateway.triton.models import Tensor
from gateway.triton.upstream import Answer
from gateway.typed import reading, wire
from gateway.typed.known import values
from gateway.typed.known.catalog import Listed
from gateway.typed.known.signatures import Signature
from gateway.typed.reading import Given

_RECORDS = {records.NAME: Tensor(records.NAME, "BYTES", (1,))}
_MOST_ANSWERED = 256 << 20  # bytes of an answer, which is held in memory to be written as JSON
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Wanted:
    """How a caller wants to be answered.

    Attributes:
        request_id: The gateway's own, which an error has, too.
        caller_id: What the caller calls the request.
    """

    caller: Caller
    deadline: Deadline
    request_id: str
    caller_id: str | None = None
    version: str | None = None
    priority: int | None = None
    traceparent: str | None = None
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Answered:
    """A model's answer.

    Attributes:
        headers: More of the answer's.
        timing: Server-Timing.
    """

    request_id: str
    outputs: Arrays
    version: str
    headers: Mapping[str, str]
    timing: str


async def ask(
    brain: Brain, listed: Listed, arrays: Arrays, rows: int, wanted: Wanted, outputs: Sequence[str] = ()
) -> Answered:
    """Ask a model.

    Raises:
        Refusal: it was not let through, or there is no answer.
    """
    model = listed.signature.model
    request_id = wanted.request_id
    asked = Asked(
        *("typed", model.name, wanted.version, "infer", rows, wanted.priority, wanted.deadline, request_id),
        traceparent=wanted.traceparent,
        arrived=wanted.arrived,
    )
    async with brain.admitted(wanted.caller, asked) as admitted:
        outcome = admitted.outcome
        outcome.inputs, outcome.caller_id = values.summary(arrays, texts=False), wanted.caller_id
        found, body = await _inferred(admitted, listed.signature, arrays, request_id, outputs)
        outcome.outputs = values.summary(found, texts=True)
        if len(body) <= MOST_SAMPLED and brain.samples.chosen(model.name, request_id):
            kept = model.name, request_id, outcome.began_ns, body
            outcome.payload = await asyncio.to_thread(brain.samples.keep, *kept)
        return Answered(request_id, found, admitted.model.version, admitted.headers, outcome.timing())


def arrays_of(listed: Listed, given: Given) -> tuple[dict[str, NDArray[Any]], int, list[list[str]] | None]:
    """Make the arrays of what a caller gives: the arrays, how many rows they are, and of entities what was not known.

    Raises:
        Refusal: it is no such entity, or nothing is known of it.
    """
    model = listed.signature.model
    if given.form == "entities":
        return _filled(listed, given.content)
    if given.form == "rows":
        rows: Sequence[Mapping[str, Any]] = given.content
        columns = {tensor.name: [row.get(tensor.name) for row in rows] for tensor in model.inputs}
        columns = {name: column for name, column in columns.items() if _is_given(model.input[name], rows)}
    else:
        columns = {name: column for name, column in given.content.items() if column is not None}
    arrays = {
        name: _array(model.input[name], column, listed.signature.batched, given.form)
        for name, column in columns.items()
    }
    sizes = {len(array) for array in arrays.values()} if listed.signature.batched else {1}
    if len(sizes) > 1:
        lengths = [
            Fault(f"/inputs/{name}", f"{len(array):,} rows", "as many as the others") for name, array in arrays.items()
        ]
        raise FaultyInput("the inputs have different numbers of rows", lengths)
    return arrays, sizes.pop() if sizes else 1, None


def rows_of(tensors: Sequence[Tensor], outputs: Arrays) -> list[dict[str, Any]]:
    """Return outputs, [B, …] each, as one object a row."""
    columns = {tensor.name: values.row(tensor, outputs[tensor.name]) for tensor in tensors if tensor.name in outputs}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def columns_of(tensors: Sequence[Tensor], outputs: Arrays, *, batched: bool) -> dict[str, Any]:
    """Return outputs as one list a tensor."""
    shown = values.row if batched else (lambda _, array: values.plain(array))
    return {tensor.name: shown(tensor, outputs[tensor.name]) for tensor in tensors if tensor.name in outputs}


def files_array(files: Sequence[bytes]) -> NDArray[Any]:
    """Return files as the input of a model that takes one a row, [B, 1]."""
    found = np.empty((len(files), 1), np.object_)
    found[:, 0] = files
    return found


async def _inferred(
    admitted: Admitted, signature: Signature, arrays: Arrays, request_id: str, outputs: Sequence[str]
) -> tuple[Arrays, bytes]:
    """Return the outputs, and what was sent for them: records, where the model takes those, else a column an input."""

    async def once(tensors: Mapping[str, Tensor], sent: Arrays) -> tuple[Arrays, bytes]:
        left_us = admitted.triton_timeout_us
        headers, body = wire.request(tensors, sent, outputs=outputs, request_id=request_id, timeout_us=left_us)
        async with await admitted.infer({**headers, **admitted.trace_headers}, body) as answer:
            return await _read(answer), body

    if signature.records and (texts := _records(arrays)):
        try:
            return await once(_RECORDS, texts)
        except Refusal as refusal:
            # An older release has taken over, and knows no such input: "… Got input(s) ['records'], but missing …".
            if f"'{records.NAME}'" not in refusal.detail:
                raise
    return await once(signature.model.input, arrays)


def _records(arrays: Arrays) -> Arrays | None:
    """Return columns as records; None where JSON has not what they hold: bytes that are no text."""
    try:
        return records.of_columns(arrays)
    except UnicodeError:
        return None


def _is_given(tensor: Tensor, rows: Sequence[Mapping[str, Any]]) -> bool:
    return not tensor.optional or any(row.get(tensor.name) is not None for row in rows)


def _array(tensor: Tensor, column: Any, batched: bool, form: str) -> NDArray[Any]:
    try:
        found = values.array(tensor, column, batched=batched)
    except (ValueError, TypeError) as error:
        pointer = f"/inputs/{tensor.name}" if form == "inputs" else f"/rows/0/{tensor.name}"
        expected = f"{values.in_words(tensor)}, of one size in all rows"
        raise FaultyInput(f"{tensor.name}: {error}", [Fault(pointer, "rows of different sizes", expected)]) from error
    return found


def _filled(listed: Listed, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, NDArray[Any]], int, list[list[str]]]:
    entities = listed.release.entities
    assert entities is not None  # there is no type for them otherwise
    try:
        filled = entities.fill(rows)
    except InvalidInputError as error:
        told = str(error).partition("\n")[0]
        raise FaultyInput(told, [_fault(error.__cause__, entities, rows)]) from error
    inputs = listed.signature.model.input
    arrays = {
        name: values.array(inputs[name], array.tolist(), batched=True) if array.dtype == np.object_ else array
        for name, array in filled.inputs.items()
    }
    return arrays, len(rows), [list(names) for names in filled.defaults]


def _fault(why: BaseException | None, entities: Entities, rows: Sequence[Mapping[str, Any]]) -> Fault:
    entity = next((e for e in entities.known if isinstance(why, EntityError) and e.name == why.entity), None)
    if entity is None or not isinstance(why, EntityError):
        return Fault("/entities", "what nothing is known of", "entities that are known")
    return Fault(
        f"/entities/{why.row}/{entity.name}", reading.shown(rows[why.row].get(entity.name)), reading.in_words(entity)
    )


async def _read(answer: Answer) -> Arrays:
    """Return the outputs of an answer; what keeps it from being one is the caller's refusal and the record's status."""
    try:
        content = await answer.read(_MOST_ANSWERED)
        if answer.status != 200:
            raise _refused(answer.status, wire.error(content))
        return wire.answer(answer.headers, content)
    except LateError as error:
        raise passed() from error
    except BrokenError as error:
        raise BAD_ANSWER("the server's answer broke off, or cannot be read") from error


def _refused(status: int, said: str) -> Exception:
    said = said.partition(TRACEBACK)[0]
    if status == 400:
        return REJECTED(said)
    if status == 503:
        return OVERLOADED(said, retry_after_s=1.0)
    return MODEL_FAILED(said)
