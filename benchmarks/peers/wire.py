"""How one sample is asked for, and its answer read, in the protocol of each system."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import wire as triton_wire
from benchmarks.peers.task import Question
from deploy.triton.payload import Tensors


@dataclass(frozen=True)
class Wire:
    """A protocol over HTTP."""

    name: str
    request: Callable[[Question], bytes]  # the whole HTTP request
    answer: Callable[[Question, bytes], Tensors]  # of a response's body; ValueError: it is none


def _plain_request(question: Question) -> bytes:
    # Whatever it holds: FastAPI reads the JSON of a body that is called so, where the peer wants the bytes.
    return _http("/predict", question.body, "Content-Type: application/octet-stream\r\n")


def _plain_answer(question: Question, body: bytes) -> Tensors:
    right = question.golden.answers
    if len(right) == 1 and not body.startswith(b"{"):
        [(name, values)] = right.items()
        return {name: np.frombuffer(body, values.dtype)}
    found = json.loads(body)
    return {
        name: np.array(found[name], values.dtype if values.dtype.kind != "O" else np.object_)
        for name, values in right.items()
        if name in found
    }


def _triton_request(question: Question) -> bytes:
    body, length = triton_wire.body(question.golden)
    return _http(
        f"/v2/models/{question.golden.model}/infer",
        body,
        f"Content-Type: application/octet-stream\r\n{triton_wire.HEADER_LENGTH}: {length}\r\n",
    )


def _triton_answer(question: Question, body: bytes) -> Tensors:
    _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    return triton_wire.answer(body, end if end < len(body) else None)


def _lists_request(question: Question) -> bytes:
    body = json.dumps({"bodies": [base64.b64encode(question.body).decode()]}).encode()
    return _http("/predict", body, "Content-Type: application/json\r\n")


def _lists_answer(question: Question, body: bytes) -> Tensors:
    [found] = json.loads(body)
    answer = found.encode()
    return _plain_answer(question, answer if answer.startswith(b"{") else base64.b64decode(answer))


def _v2_request(question: Question) -> bytes:
    data = base64.b64encode(question.body).decode()
    given = {"name": "body", "shape": [1, 1], "datatype": "BYTES", "data": [data]}
    body = json.dumps({"id": "1", "inputs": [given]}).encode()  # without an id it makes one up
    return _http("/v2/models/task/infer", body, "Content-Type: application/json\r\n")


def _v2_answer(question: Question, body: bytes) -> Tensors:
    [answer] = json.loads(body)["outputs"][0]["data"]
    return _lists_answer(question, json.dumps([answer]).encode())


def _http(path: str, body: bytes, headers: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


PLAIN = Wire("the sample as the body, JSON or raw numbers back", _plain_request, _plain_answer)
TRITON = Wire("Open Inference Protocol with binary tensors", _triton_request, _triton_answer)
LISTS = Wire("a JSON list with the sample in base64, a list of strings back", _lists_request, _lists_answer)
V2 = Wire("Open Inference Protocol, the sample in base64", _v2_request, _v2_answer)
