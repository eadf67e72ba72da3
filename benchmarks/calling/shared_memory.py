"""From what size on an input in shared memory is worth it, compared with one in the request.

The model adds its input up and answers with one number, so that what differs is the way of the input. Both ways are
taken in turn; the median over the rounds counts.
"""

import argparse
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import own_server, results
from benchmarks.errors import MeasurementError
from benchmarks.rounds import in_turn
from cli import tables
from cli.tables import Table, console
from clients import Client, Transport
from clients.settings import Protocol
from clients.shared_memory import SharedMemory
from deploy.triton.settings import admin_key
from deploy.triton.state import Running

_SIZES_BYTES = (4 << 10, 64 << 10, 1 << 20, 16 << 20)
_PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
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
    found = measure(options.rounds, options.seconds)
    console().print(table(found))
    results.keep("shared-memory", {"ways": [asdict(result) for result in found]})
    return 0


def measure(rounds: int, seconds: float) -> list[SharedMemoryResult]:
    """Send inputs both ways, over both protocols, of every size, so many seconds each.

    Raises:
        MeasurementError: the two ways do not agree.
        DeployError: as `deploy.running.server.serving`.
    """
    with own_server.serving_python_models(MODELS) as up, ExitStack() as opened:
        clients = {protocol: opened.enter_context(_client(up, protocol)) for protocol in _PROTOCOLS}
        regions = {
            protocol: opened.enter_context(SharedMemory(client, max(_SIZES_BYTES), mode=0o666))
            for protocol, client in clients.items()
        }
        measurements = {
            (size, protocol): functools.partial(
                _both_ways, clients[protocol], regions[protocol], {"IN": np.ones(size // 4, np.float32)}, seconds
            )
            for size in _SIZES_BYTES
            for protocol in _PROTOCOLS
        }
        found = in_turn(measurements, rounds)
    return [SharedMemoryResult(*key, *zip(*by_round, strict=True)) for key, by_round in found.items()]


def table(found: Sequence[SharedMemoryResult]) -> Table:
    """Lay out the medians for every size and protocol."""
    title = f"One input, p50: medians of {len(found[0].sent_p50_us)} rounds"
    shown = tables.table("", "bytes", "in the request µs", "in shared memory µs", "×", title=title)
    for result in found:
        sent, shared = median(result.sent_p50_us), median(result.shared_p50_us)
        cells = (f"{result.size_bytes:,}", f"{sent:,.0f}", f"{shared:,.0f}", f"{sent / shared:.2f}")
        shown.add_row(result.protocol, *cells)
    return shown


def _both_ways(client: Client, region: SharedMemory, inputs: Mapping[str, Any], seconds: float) -> tuple[float, float]:
    return _p50_us(client.infer, inputs, seconds), _p50_us(region.infer, inputs, seconds)


def _client(up: Running, protocol: Protocol) -> Client:
    key = admin_key(Path(up.admin_key_file) if up.admin_key_file else None)
    address = up.grpc if protocol == "grpc" else up.http
    return Client(f"{protocol}://{address}", transport=Transport(admin_key=key))


def _p50_us(infer: Callable[..., Any], inputs: Mapping[str, Any], seconds: float) -> float:
    latencies, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        answer = infer("sum", inputs)
        latencies.append(time.perf_counter() - began)
    if answer["OUT"][0] != len(inputs["IN"]):
        raise MeasurementError(f"the sum of {len(inputs['IN']):,} ones came back as {answer['OUT'][0]:,}")
    return median(latencies) * 1e6
