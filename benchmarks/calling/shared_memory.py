"""From what size on an input in shared memory is worth it, compared with one in the request.

The model adds its input up and answers with one number, so that what differs is the way of the input. Both ways are
taken in turn; the median over the rounds counts. With --model it is the golden requests of a model that the running
server has, of one sample and the largest, and their answers are checked.
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import own_server, results, target, workload
from benchmarks.errors import MeasurementError
from benchmarks.rounds import in_turn
from cli import tables
from cli.tables import Table, console
from clients import Client, Transport
from clients.core.tensors import encoded_strings
from clients.settings import Protocol
from clients.shared_memory import SharedMemory
from contracts.golden import GoldenRequest
from deploy.neighbours import listener
from deploy.triton.settings import admin_key
from deploy.triton.state import Running

_SIZES_BYTES = (4 << 10, 64 << 10, 1 << 20, 16 << 20)
_ROOM_BYTES = 4096  # between the inputs of a request
_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values.sum(keepdims=True))])
"""


MODELS = {"sum": (own_server.CONFIG.format(instances=1), _MODEL)}


@dataclass(frozen=True)
class SharedMemoryResult:
    """One size of input, one protocol, and what each round gave."""

    size_bytes: int
    protocol: str
    sent_p50_us: tuple[float, ...]  # in the request
    shared_p50_us: tuple[float, ...]


def main(options: argparse.Namespace) -> int:
    """Measure, print and keep."""
    if options.model:
        up = target.running()
        sent = workload.find(f"http://{up.http}", options.model, Path(up.repository))
        if not sent.has_answers:
            raise MeasurementError(
                f"there are no golden requests for {sent.model}", hint="export it again to have some"
            )
        found = measure(up, _ends(sent.requests), options.rounds, options.seconds)
    else:
        with own_server.serving_python_models(MODELS) as up:
            found = measure(up, made_up(), options.rounds, options.seconds)
    model = options.model or "a model that adds up"
    console().print(table(found, model))
    results.keep("shared-memory", {"model": options.model, "ways": [asdict(result) for result in found]})
    return 0


def measure(up: Running, requests: Sequence[GoldenRequest], rounds: int, seconds: float) -> list[SharedMemoryResult]:
    """Send requests both ways, over both protocols, so many seconds each.

    Raises:
        MeasurementError: an answer is wrong.
    """
    largest = max(map(_size_bytes, requests)) + _ROOM_BYTES
    with ExitStack() as opened:
        clients = {protocol: opened.enter_context(_client(up, protocol)) for protocol in _protocols(up)}
        regions = {
            protocol: opened.enter_context(SharedMemory(client, largest, mode=0o666))
            for protocol, client in clients.items()
        }
        measurements = {
            (_size_bytes(request), protocol): functools.partial(
                _both_ways, clients[protocol], regions[protocol], request, seconds
            )
            for request in requests
            for protocol in clients
        }
        found = in_turn(measurements, rounds)
    return [SharedMemoryResult(*key, *zip(*by_round, strict=True)) for key, by_round in found.items()]


def made_up() -> list[GoldenRequest]:
    """Make requests of every size for the model that adds up."""
    return [
        GoldenRequest("sum", {"IN": np.ones(size // 4, np.float32)}, {"OUT": np.array([size // 4], np.float32)})
        for size in _SIZES_BYTES
    ]


def table(found: Sequence[SharedMemoryResult], model: str) -> Table:
    """Lay out the medians for every size and protocol."""
    title = f"Inputs to {model}, p50: medians of {len(found[0].sent_p50_us)} rounds"
    shown = tables.table("", "bytes", "in the request µs", "in shared memory µs", "×", title=title)
    for result in found:
        sent, shared = median(result.sent_p50_us), median(result.shared_p50_us)
        cells = (f"{result.size_bytes:,}", f"{sent:,.0f}", f"{shared:,.0f}", f"{sent / shared:.2f}")
        shown.add_row(result.protocol, *cells)
    return shown


def _ends(requests: Sequence[GoldenRequest]) -> list[GoldenRequest]:
    """Take the smallest request and the largest."""
    ordered = sorted(requests, key=_size_bytes)
    return ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]


def _size_bytes(request: GoldenRequest) -> int:
    """Add up the inputs, as they are in memory that is shared."""
    return sum(
        len(encoded_strings(values)) if values.dtype == np.object_ else values.nbytes
        for values in request.inputs.values()
    )


def _both_ways(client: Client, region: SharedMemory, request: GoldenRequest, seconds: float) -> tuple[float, float]:
    return _p50_us(client.infer, request, seconds), _p50_us(region.infer, request, seconds)


def _protocols(up: Running) -> list[Protocol]:
    return ["http"] if up.grpc_tls else ["grpc", "http"]  # its certificate may be of another name


def _client(up: Running, protocol: Protocol) -> Client:
    key = admin_key(Path(up.admin_key_file) if up.admin_key_file else None)
    address, port = (up.grpc, up.grpc_port) if protocol == "grpc" else (up.http, up.http_port)
    listener.check(up.triton.pid, up.host, port)
    return Client(f"{protocol}://{address}", transport=Transport(admin_key=key))


def _p50_us(infer: Callable[..., Any], request: GoldenRequest, seconds: float) -> float:
    latencies, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        answer = infer(request.model, request.inputs, outputs=[*request.answers])
        latencies.append(time.perf_counter() - began)
        if told := request.fault(answer):
            raise MeasurementError(f"{request.model}, {_size_bytes(request):,} bytes of input: {told}")
    return median(latencies) * 1e6
