"""From what size on an input in shared memory is worth it, compared with one in the request.

The model adds its input up and answers with one number, so that what differs is the way of the input. Both ways are
taken in turn; the median over the rounds counts.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.progress import Progress
from rich.table import Table

from benchmarks.calling import small_server
from benchmarks.errors import MeasurementError
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


@dataclass(frozen=True)
class Sharing:
    """One size of input, one protocol, and what each round gave."""

    size_bytes: int
    protocol: str
    sent_p50_us: tuple[float, ...]  # in the request
    shared_p50_us: tuple[float, ...]


def measure(rounds: int, seconds: float, progress: Progress) -> list[Sharing]:
    """Both ways, over both protocols, for every size, so many seconds each.

    Raises:
        MeasurementError: the two ways do not agree.
        DeployError: as `deploy.running.server.serving`.
    """
    model = (small_server.CONFIG.format(instances=1), _MODEL)
    inputs = {size: {"IN": np.ones(size // 4, np.float32)} for size in _SIZES_BYTES}
    seen: dict[tuple[int, Protocol], list[tuple[float, float]]] = {(s, p): [] for s in _SIZES_BYTES for p in _PROTOCOLS}
    with small_server.serving({"sum": model}) as up, ExitStack() as stack:
        clients = {protocol: stack.enter_context(_client(up, protocol)) for protocol in _PROTOCOLS}
        regions = {
            protocol: stack.enter_context(SharedMemory(client, max(_SIZES_BYTES), mode=0o666))
            for protocol, client in clients.items()
        }
        for _ in progress.track(range(rounds), description="rounds"):
            for (size, protocol), figures in seen.items():
                ways = (clients[protocol].infer, regions[protocol].infer)
                figures.append((_p50_us(ways[0], inputs[size], seconds), _p50_us(ways[1], inputs[size], seconds)))
    return [Sharing(*key, *zip(*figures, strict=True)) for key, figures in seen.items()]


def table(found: Sequence[Sharing]) -> Table:
    shown = Table(title=f"One input, p50: medians of {len(found[0].sent_p50_us)} rounds")
    for heading in ("bytes", "", "in the request µs", "in shared memory µs", "×"):
        shown.add_column(heading, justify="right" if heading else "left")
    for one in found:
        sent, shared = median(one.sent_p50_us), median(one.shared_p50_us)
        shown.add_row(f"{one.size_bytes:,}", one.protocol, f"{sent:,.0f}", f"{shared:,.0f}", f"{sent / shared:.2f}")
    return shown


def _client(up: Running, protocol: Protocol) -> Client:
    key = admin_key(Path(up.admin_key_file) if up.admin_key_file else None)
    address = up.grpc if protocol == "grpc" else up.http
    return Client(f"{protocol}://{address}", transport=Transport(admin_key=key))


def _p50_us(infer: Callable[..., Any], inputs: dict[str, Any], seconds: float) -> float:
    latencies, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        answer = infer("sum", inputs)
        latencies.append(time.perf_counter() - began)
    if answer["OUT"][0] != len(inputs["IN"]):
        raise MeasurementError(f"the sum of {len(inputs['IN']):,} ones came back as {answer['OUT'][0]:,}")
    return median(latencies) * 1e6
