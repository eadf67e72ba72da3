"""What a plan takes, three ways: from Python with copies, on the GPU alone, and in Triton by its own statistics."""

import json
import statistics
import time
from typing import Any

from benchmarks.gpu_day.checks import answers, offline
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record
from benchmarks.gpu_day.serving import Serving, serving
from clients import Client
from contracts.golden import GoldenRequest
from export.proof.plan_runner import GRAPH, PlanRunner
from export.proof.runners import Runner

_CALLS = 50


def timing(day: Day, record: Record) -> None:
    """Time every batch size that the model takes, offline and in Triton; 1 request at a time."""
    release, rows = offline.served(day), []
    with serving(day, "plans") as server:
        asked = answers.requests(server, release)
        with offline.runner(day, release) as run:
            for size, request in asked.items():
                rows.append(
                    {
                        "rows": size,
                        "harness ms": _harness_ms(run, request),
                        "on the GPU ms": _on_gpu_ms(run, request),
                        **_in_triton(server, request),
                    }
                )
        if isinstance(run, PlanRunner):
            record.check("every batch could be captured as a CUDA graph", run.how == GRAPH, run.how)
    record.figure(times=rows)
    graphs = [row for row in rows if row["on the GPU ms"] is not None]
    told = ", ".join(f"batch {row['rows']}: {row['harness ms'] / row['on the GPU ms']:.1f}×" for row in graphs)
    record.check("timed; the harness takes so many times the GPU's time", True, told or "no GPU")


def _harness_ms(run: Runner, request: GoldenRequest) -> float:
    times_ms = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        run(request.inputs)
        times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms)


def _on_gpu_ms(run: Runner, request: GoldenRequest) -> float | None:
    """Return the time of a replay of its CUDA graph, of a plan."""
    if not isinstance(run, PlanRunner):
        return None
    return statistics.median(run.gpu_ms(request.inputs) for _ in range(_CALLS))


def _in_triton(server: Serving, request: GoldenRequest) -> dict[str, Any]:
    """Return what a request takes for its caller, and of that what Triton says that computing and copies took."""
    before = _statistics(server, request.model)
    times_ms = []
    with Client(f"grpc://{server.grpc}") as client:
        for _ in range(_CALLS):
            started = time.perf_counter()
            client.infer(request.model, request.inputs, outputs=[*request.answers])
            times_ms.append((time.perf_counter() - started) * 1e3)
    after = _statistics(server, request.model)
    parts = {
        part: (after[part]["ns"] - before[part]["ns"]) / max(1, after[part]["count"] - before[part]["count"]) / 1e6
        for part in ("queue", "compute_input", "compute_infer", "compute_output")
    }
    named = {f"Triton's {part.replace('compute_', '')} ms": value for part, value in parts.items()}
    return {**named, "request ms": statistics.median(times_ms)}


def _statistics(server: Serving, model: str) -> dict[str, dict[str, int]]:
    [found] = json.loads(server.get(f"/v2/models/{model}/stats"))["model_stats"][-1:]
    inference: dict[str, dict[str, int]] = found["inference_stats"]
    return inference
