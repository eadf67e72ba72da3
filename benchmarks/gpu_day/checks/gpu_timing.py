"""What a computation on the GPU takes: called from Python with its copies, launched, and replayed as a CUDA graph."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_WARM_UP, _CALLS = 5, 50
_IN_A_ROW = 20  # between two events, which are told in half microseconds


@dataclass(frozen=True)
class Ways:
    """Medians in milliseconds of one call."""

    harness_ms: float  # from numpy to numpy, by the clock
    launched_ms: float  # on buffers of the GPU, between events
    graph_ms: float | None  # the same as replays of a CUDA graph; None if it could not be captured

    @property
    def harness_over_graph(self) -> float:
        """How many times as long the harness takes."""
        return self.harness_ms / (self.graph_ms or self.launched_ms)


def three_ways(harness: Callable[[], object], compute: Callable[[], object]) -> Ways:
    """Time a computation.

    Args:
        harness: The whole call, copies and all.
        compute: What enqueues it alone on the current stream, on buffers that stay where they are.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch
    return Ways(_by_clock(harness), _by_events(compute, stream), _as_graph(compute, stream))


def _by_clock(call: Callable[[], object]) -> float:
    for _ in range(_WARM_UP):
        call()
    times_ms = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms)


def _by_events(compute: Callable[[], object], stream: torch.cuda.Stream) -> float:
    times_ms = []
    with torch.cuda.stream(stream):
        for number in range(_WARM_UP + _CALLS):
            start, end = _event(), _event()
            start.record(stream)
            for _ in range(_IN_A_ROW):
                compute()
            end.record(stream)
            end.synchronize()
            if number >= _WARM_UP:
                times_ms.append(float(start.elapsed_time(end)) / _IN_A_ROW)
    return statistics.median(times_ms)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch


def _as_graph(compute: Callable[[], object], stream: torch.cuda.Stream) -> float | None:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            compute()
    except RuntimeError as error:  # it copies to the host, or allocates in a way that cannot be captured
        print(f"not captured: {error}", flush=True)
        return None
    return _by_events(graph.replay, stream)
