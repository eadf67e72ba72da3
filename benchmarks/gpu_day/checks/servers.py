"""Servers on a GPU: two of them beside each other, their metrics of the GPU, and large HTTP bodies."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import own_server
from benchmarks.gpu_day.checks import answers, offline
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record
from benchmarks.gpu_day.serving import serving
from clients import Client
from clients.errors import ClientError

_GAUGES = ("nv_gpu_utilization", "nv_gpu_memory_total_bytes", "nv_gpu_memory_used_bytes", "nv_gpu_power_usage")
_SAMPLE = re.compile(r'^(?P<name>nv_(?:gpu|energy)_\w+)\{gpu_uuid="(?P<gpu>[^"]+)"\} (?P<value>\S+)$', re.MULTILINE)
_BODY_BYTES = (60 << 20, 72 << 20)  # below and above what Triton takes by itself since 25.06
_ANSWERED = "answered"
_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values[-1:])])
"""


def two(day: Day, record: Record) -> None:
    """Serve the same release twice at the same time; both answer, alone and while the other does."""
    release = offline.served(day)
    with serving(day, "first") as first, serving(day, "second") as second:
        for name, server in (("the first", first), ("the second", second)):
            asked = list(answers.requests(server, release).values())
            answers.under_load(server, asked, 200, record, name)
        record.figure(gpu_memory=memory_of_gpus(first.get_metrics()))


def metrics(day: Day, record: Record) -> None:
    """Look for Triton's gauges of every GPU."""
    with serving(day, "metrics") as server:
        found = gauges(server.get_metrics())
    record.figure(gauges=found)
    gpus = {row["gpu"] for row in found}
    for name in _GAUGES:
        has = {row["gpu"] for row in found if row["name"] == name}
        told = (
            f"{len(has)} of {len(gpus)} GPUs; none on a MIG slice, nor where DCGM cannot start" if has != gpus else ""
        )
        record.check(name, bool(gpus) and has == gpus, told)


def large_bodies(day: Day, record: Record) -> None:
    """Send bodies of less and of more than 64 MB over HTTP to a Python model that gives the last number back."""
    small, large = _BODY_BYTES
    found = _sent(None, (small, large))
    record.check("a body of 60 MB is answered", found[small] == _ANSWERED, found[small])
    refused = "http-max-input-size" in found[large]
    told = f"{found[large]}{': this Triton limits them' if refused else ''}"
    record.check("one of 72 MB is answered, or refused with the option's name", refused or told == _ANSWERED, told)
    if refused:
        told = _sent(2 * large, (large,))[large]
        record.check("with the limit raised (up --http-max-mb) it is answered", told == _ANSWERED, told)


def _sent(http_max_bytes: int | None, sizes: Sequence[int]) -> dict[int, str]:
    """Send bodies to a server with that limit; return {size: what came}."""
    models, found = {"last": (own_server.CONFIG.format(instances=1), _MODEL)}, {}
    with (
        own_server.serving_python_models(models, http_max_bytes) as up,
        Client(f"http://{up.http}", timeout_s=30) as client,
    ):
        for size in sizes:
            values = np.zeros(size // 4, np.float32)
            values[-1] = size % 1000
            try:
                answer = client.infer("last", {"IN": values})["OUT"]
                found[size] = _ANSWERED if answer[0] == values[-1] else f"answered wrong: {answer[0]}"
            except ClientError as error:
                found[size] = str(error).partition("\n")[0]
    return found


def gauges(text: str) -> list[dict[str, Any]]:
    """Return Triton's figures of GPUs, of the text that its metrics port gives."""
    return [
        {"name": found["name"], "gpu": found["gpu"], "value": float(found["value"])} for found in _SAMPLE.finditer(text)
    ]


def memory_of_gpus(text: str) -> dict[str, float]:
    """Return {GPU: MB that are used of it}."""
    return {row["gpu"]: round(row["value"] / 1e6) for row in gauges(text) if row["name"] == "nv_gpu_memory_used_bytes"}
