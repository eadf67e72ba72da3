"""Two models that answer with what they were asked, so that what Triton understood can be seen, behind a front.

A request is made of parts that a test may change before it is sent: what a client of Triton would send, but for one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from deploy.triton import environment
from tests.deploy.nginx import Proxy, proxy
from tests.deploy.tiny_models import Server, serving

ROWS = 8  # the models' max_batch_size
LENGTH = "Inference-Header-Content-Length"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
_CONFIG = """
backend: "python"
max_batch_size: %d
input [ { name: "IN" data_type: TYPE_%s dims: [ %s ] } ]
output [ { name: "OUT" data_type: TYPE_%s dims: [ %s ] } ]
"""
_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "IN") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor.as_numpy())]) for tensor in given]
"""
_DIMS = {"pixels": ("UINT8", "1, 2, 2"), "words": ("STRING", "-1")}


@dataclass(frozen=True)
class Echo:
    """A request to one of the two models, as a client makes it."""

    model: str  # pixels or words
    shape: tuple[int, ...]
    content: bytes  # of the tensor
    datatype: str

    @property
    def input(self) -> dict[str, Any]:
        """The input's description in the JSON of the request."""
        size = {"binary_data_size": len(self.content)}
        return {"name": "IN", "shape": list(self.shape), "datatype": self.datatype, "parameters": size}

    def header(self, **more: Any) -> bytes:
        """The JSON of the request."""
        return json.dumps({"inputs": [self.input], "outputs": [BINARY], **more}).encode()

    def message(self) -> "service_pb2.ModelInferRequest":
        request = service_pb2.ModelInferRequest(model_name=self.model, raw_input_contents=[self.content])
        request.inputs.add(name="IN", datatype=self.datatype, shape=self.shape)
        return request

    @property
    def path(self) -> str:
        return f"/v2/models/{self.model}/infer"


BINARY = {"name": "OUT", "parameters": {"binary_data": True}}
PIXELS = Echo("pixels", (2, 1, 2, 2), bytes(range(8)), "UINT8")
WORDS = Echo("words", (2, 1), b"\3\0\0\0one\0\0\0\0", "BYTES")
ECHOES = {"pixels": PIXELS, "words": WORDS}


@dataclass(frozen=True)
class Answer:
    """What came back: of one who is answered shape and content of the output, else who refused and why."""

    status: int | str
    shape: tuple[int, ...] = ()
    content: bytes = b""
    reason: str = ""

    def is_echo_of(self, asked: Echo) -> bool:
        return self.status in (200, "OK") and (self.shape, self.content) == (asked.shape, asked.content)


@dataclass(frozen=True)
class Front:
    """A Triton with the two models, and a proxy in front of it."""

    triton: Server
    proxy: Proxy

    def is_alive(self) -> bool:
        """Triton has not ended, its answers are right, and the front has not failed."""
        return (
            self.triton.process.is_running()
            and "the front failed" not in (self.proxy.folder / "error.log").read_text()
            and all(post(self.proxy.connect(), echo).is_echo_of(echo) for echo in ECHOES.values())
        )

    def passed_on_in_vain(self) -> list[dict[str, Any]]:
        """The requests that Triton had to refuse: what the front has understood in another way, or not at all."""
        passed = [json.loads(line) for line in self.proxy.log if '"upstream_s":""' not in line]
        return [entry for entry in passed if entry["status"] >= 400 or entry["grpc_status"] not in ("", "0")]


@contextmanager
def front(folder: Path, changes: Mapping[str, str] | None = None) -> Iterator[Front]:
    """The shipped proxy in front of a real Triton, in two folders below this one."""
    with (
        bare(folder / "models") as (triton, http, grpc_address),
        proxy(folder / "proxy", http, grpc_address, changes) as running,
    ):
        yield Front(triton, running)


@contextmanager
def bare(repository: Path) -> Iterator[tuple[Server, str, str]]:
    """Triton alone, and its addresses for HTTP and gRPC."""
    write_echoes(repository)
    with serving(repository, environment.pip_installed(print)) as triton:
        options = dict(word[2:].split("=", 1) for word in triton.process.cmdline() if "-port=" in word)
        yield triton, f"127.0.0.1:{options['http-port']}", f"127.0.0.1:{options['grpc-port']}"


def write_echoes(repository: Path) -> None:
    """The two models."""
    for model, (datatype, dims) in _DIMS.items():
        (repository / model / "1").mkdir(parents=True)
        (repository / model / "1" / "model.py").write_text(_MODEL)
        config = _CONFIG % (ROWS, datatype, dims, datatype, dims)
        (repository / model / "config.pbtxt").write_text(config)


def post(
    connection: HTTPConnection,
    asked: Echo,
    header: bytes | None = None,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = "",
) -> Answer:
    """Send a request over HTTP: the echo's own, with another JSON `header`, with other headers or another body."""
    header = asked.header() if header is None else header
    sent = {LENGTH: str(len(header)), **(headers or {})}
    connection.request("POST", path or asked.path, header + asked.content if body is None else body, sent)
    response = connection.getresponse()
    content = response.read()
    return answer(response.status, content, int(response.headers.get(LENGTH, len(content))))


def answer(status: int, content: bytes, header_bytes: int) -> Answer:
    """What an HTTP response says whose first bytes are JSON."""
    text = content[:header_bytes].decode(errors="surrogateescape")  # strings come back in JSON as they were sent
    described = json.loads(text) if text else {}
    if status != 200:
        return Answer(status, reason=described.get("error", ""))
    [output] = described["outputs"]
    shape, values = tuple(output["shape"]), output.get("data")
    if values is None:
        return Answer(200, shape, content[header_bytes:])
    if output["datatype"] == "BYTES":
        return Answer(200, shape, strings(*(value.encode(errors="surrogateescape") for value in values)))
    return Answer(200, shape, bytes(values))


def strings(*values: bytes) -> bytes:
    """The content of a tensor of strings."""
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def call(channel: grpc.Channel, message: bytes, method: str = METHOD) -> Answer:
    """Send these bytes as the message of a gRPC request."""
    [answer] = call_at_once(channel, [message], method)
    return answer


def call_at_once(channel: grpc.Channel, messages: Sequence[bytes], method: str = METHOD) -> list[Answer]:
    """Send each as the message of a request of its own, without waiting for the answers to those before."""
    ask = channel.unary_unary(method)
    return [_answer(future) for future in [ask.future(message, timeout=30) for message in messages]]


def _answer(future: Any) -> Answer:
    if error := future.exception():
        return Answer(error.code().name, reason=str(error.details()))
    reply = service_pb2.ModelInferResponse.FromString(future.result())
    [output], [content] = reply.outputs, reply.raw_output_contents
    return Answer("OK", tuple(output.shape), content)
