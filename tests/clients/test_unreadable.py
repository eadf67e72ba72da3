"""Whatever a server sends in place of a response: the caller gets an answer or an error of the tree, and no other."""

import asyncio
import json
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages

from clients import AsyncClient, Client, ClientError, InvalidResponseError, Retry
from clients.core.failures import Failure
from clients.core.request import Query, Request
from clients.settings import Address, TransportOptions
from clients.transports import async_transport_of, transport_of
from tests.clients.http_server import answer_of, server

REQUEST = Request("m", {"a": np.zeros((1, 2), np.float32)}, id="1")
QUERIES = tuple(Query(endpoint) for endpoint in ("live", "ready", "server_metadata", "statistics", "repository_index"))  # type: ignore[arg-type]
OF_A_MODEL = tuple(Query(endpoint, "m") for endpoint in ("model_metadata", "model_config"))  # type: ignore[arg-type]
ONCE = Retry(max_attempts=1)

Respond = Callable[[str], bytes]  # by the method or path that was asked: a message, or the whole of an HTTP response


class Grpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Responds to every method with bytes, whatever they are."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """As gRPC wants it."""
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._respond(details.method))


@contextmanager
def grpc_server(respond: Respond) -> Iterator[str]:
    found = grpc.server(ThreadPoolExecutor(2), handlers=[Grpc(respond)])
    port = found.add_insecure_port("127.0.0.1:0")
    found.start()
    yield f"grpc://127.0.0.1:{port}"
    found.stop(None).wait()


@contextmanager
def http_server(respond: Respond) -> Iterator[str]:
    """One response a connection, so that half a response is not waited for."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(respond(connection.recv(65536).split(b" ")[1].decode()))

    with server(handle) as (port, _):
        yield f"http://127.0.0.1:{port}"


SERVERS = {"grpc": grpc_server, "http": http_server}


def described() -> bytes:
    tensor = messages.ModelMetadataResponse.TensorMetadata(name="a", datatype="FP32", shape=[-1, 2])
    return bytes(messages.ModelMetadataResponse(name="m", inputs=[tensor], outputs=[tensor]).SerializeToString())


def answered() -> bytes:
    response = messages.ModelInferResponse(model_name="m", id="1", raw_output_contents=[bytes(8), b"\2\0\0\0\xff\0"])
    response.outputs.add(name="a", datatype="FP32", shape=[1, 2])
    response.outputs.add(name="b", datatype="BYTES", shape=[1, 1])
    return bytes(response.SerializeToString())


JSON_METADATA = {"name": "m", "inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []}
JSON_ANSWER = {
    "id": "1",
    "outputs": [
        {"name": "a", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        {"name": "b", "datatype": "BYTES", "shape": [1, 1], "data": ["é"]},
    ],
}


def json_answer(binary: bytes = bytes(8), length: bytes | None = None) -> bytes:
    head = json.dumps(JSON_ANSWER).encode()
    length = str(len(head)).encode() if length is None else length
    return answer_of(200, head + binary, b"Inference-Header-Content-Length: " + length, b"Connection: close")


def closing(body: bytes) -> bytes:
    return answer_of(200, body, b"Connection: close")


GRPC_ANSWERS = {
    "bytes that are no message": b"\xff\xff\xff",
    "half of a message": answered()[:-5],
    "a text that is not UTF-8": b"\x0a\x02\xff\xff",
    "fewer contents than outputs": messages.ModelInferResponse(
        id="1", outputs=[messages.ModelInferResponse.InferOutputTensor(name="a", datatype="FP32", shape=[1])]
    ).SerializeToString(),
    "a content that does not fit": answered().replace(bytes(8), bytes(7) + b"", 1)[:-1],
}
HTTP_ANSWERS = {
    "bytes that are no JSON": closing(b"\xff\xff\xff"),
    "half of JSON": closing(json.dumps(JSON_ANSWER).encode()[:-9]),
    "JSON of another kind": closing(b"[1]"),
    "outputs that are none": closing(b'{"id": "1", "outputs": 7}'),
    "no binary section": json_answer(b""),
    "half of the binary section": json_answer(bytes(5)),
    "a length that is no number": json_answer(length=b"x"),
    "a length below zero": json_answer(length=b"-5"),
    "a length beyond the end": json_answer(length=b"99999"),
}


def grpc_respond(answer: bytes) -> Respond:
    return lambda method: {"ModelMetadata": described(), "ModelConfig": b""}.get(method.rpartition("/")[2], answer)


def http_respond(answer: bytes) -> Respond:
    metadata, config = closing(json.dumps(JSON_METADATA).encode()), closing(b"{}")
    return lambda path: {"/v2/models/m": metadata, "/v2/models/m/config": config}.get(path, answer)


CASES = [("grpc", what, grpc_respond(answer)) for what, answer in GRPC_ANSWERS.items()]
CASES += [("http", what, http_respond(answer)) for what, answer in HTTP_ANSWERS.items()]


@pytest.mark.parametrize("of", ["threads", "coroutines"])
@pytest.mark.parametrize(("protocol", "respond"), [case[::2] for case in CASES], ids=[" ".join(c[:2]) for c in CASES])
def test_an_answer_that_cannot_be_read_is_an_invalid_response(protocol: str, respond: Respond, of: str) -> None:
    inputs = {"a": np.zeros((1, 2), np.float32)}

    async def ask(url: str) -> None:
        async with AsyncClient(url, retry=ONCE) as client:
            await client.infer("m", inputs, request_id="1")

    with SERVERS[protocol](respond) as url, pytest.raises(InvalidResponseError):
        if of == "coroutines":
            asyncio.run(ask(url))
        with Client(url, retry=ONCE) as client:
            client.infer("m", inputs, request_id="1")


@pytest.mark.parametrize("of", ["threads", "coroutines"])
@pytest.mark.parametrize("protocol", SERVERS)
def test_no_query_fails_otherwise_where_nothing_can_be_read(protocol: str, of: str) -> None:
    answer = b"\xff\xff\xff" if protocol == "grpc" else closing(b"\xff\xff\xff")
    names = ("server_metadata", "statistics", "repository_index", "ready", "load_model", "metadata", "model_config")
    given = {"load_model": ["m"], "metadata": ["m"], "model_config": ["m"]}
    if protocol == "http":  # by its status alone
        names = tuple(name for name in names if name not in ("ready", "load_model"))

    async def ask(url: str) -> None:
        async with AsyncClient(url, retry=ONCE) as client:
            assert await client.live()  # somebody is there
            for name in names:
                with pytest.raises(InvalidResponseError):
                    await getattr(client, name)(*given.get(name, []))

    with SERVERS[protocol](lambda asked: answer) as url:
        if of == "coroutines":
            asyncio.run(ask(url))
            return
        with Client(url, retry=ONCE) as client:
            assert client.live()
            for name in names:
                with pytest.raises(InvalidResponseError):
                    getattr(client, name)(*given.get(name, []))


@pytest.mark.parametrize("of", ["threads", "coroutines"])
@pytest.mark.parametrize("protocol", SERVERS)
def test_bytes_that_are_changed_anywhere_are_a_response_or_a_failure(protocol: str, of: str) -> None:
    """Of HTTP its head, too. The changes are the same in every run."""
    chance = random.Random(0)
    whole = {"grpc": (answered(), described()), "http": (json_answer(), closing(json.dumps(JSON_METADATA).encode()))}

    def respond(asked: str) -> bytes:
        changed = bytearray(whole[protocol][not asked.lower().endswith("infer")])
        for _ in range(chance.choice((1, 3))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    seen: list[Any] = []
    questions = [*([REQUEST] * 4), *QUERIES, *OF_A_MODEL] * 40

    async def ask(address: Address) -> None:
        transport = async_transport_of(address, TransportOptions())
        for question in questions:
            try:
                seen.append(await transport.send(question, 2))
            except Failure as failure:
                seen.append(failure)
        await transport.close()

    with SERVERS[protocol](respond) as url:
        if of == "coroutines":
            asyncio.run(ask(Address.of(url)))
        else:
            transport = transport_of(Address.of(url), TransportOptions())
            for question in questions:
                try:
                    seen.append(transport.send(question, 2))
                except Failure as failure:
                    seen.append(failure)
            transport.close()
    failures = sum(isinstance(one, Failure) for one in seen)
    assert len(seen) == len(questions)
    assert 0 < failures < len(seen)


def test_metadata_that_describes_nothing_is_an_invalid_response() -> None:
    """Which a client may get of any server that speaks JSON."""
    with http_server(lambda path: closing(b'{"inputs": [7]}')) as url, Client(url, retry=ONCE) as client:
        for ask in (client.metadata, lambda model: client.infer(model, {})):
            with pytest.raises(ClientError, match="invalid metadata or configuration"):
                ask("m")
