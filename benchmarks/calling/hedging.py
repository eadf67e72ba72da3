"""What hedging does to a long tail, and how many requests it costs.

The model takes 5 ms, and in one case of fifty 100 ms: made up, as a tail that a machine has by itself would not be the
same in two measurements. With and without hedging in turn, from a few callers in a closed loop.
"""

import argparse
import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from benchmarks import own_server, results
from benchmarks.rounds import in_turn
from cli import tables
from cli.tables import Table, console
from clients import AsyncClient
from deploy.triton.state import Running

HEDGE_AFTER_S = 0.02
_CALLERS, _INSTANCES = 4, 8
_PERCENTILES = (50, 95, 99, 99.9)
_MODEL = """
import random
import time

import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        time.sleep(0.1 if random.random() < 0.02 else 0.005)
        values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)])
"""


MODELS = {"tail": (own_server.CONFIG.format(instances=_INSTANCES), _MODEL)}


@dataclass(frozen=True)
class HedgingResult:
    """With hedging or without, and what each round gave."""

    hedge_after_s: float | None
    percentiles_ms: tuple[tuple[float, ...], ...]  # of each round, as in _PERCENTILES
    sent_per_call: tuple[float, ...]


def main(options: argparse.Namespace) -> int:
    """Measure, print and keep."""
    found = measure(options.rounds, options.seconds)
    console().print(table(found))
    results.keep("hedging", {"ways": [asdict(result) for result in found]})
    return 0


def measure(rounds: int, seconds: float) -> list[HedgingResult]:
    """Call without hedging and with it, in turn, so many seconds each.

    Raises:
        DeployError: as `deploy.running.server.serving`.
    """
    with own_server.serving_python_models(MODELS) as up:

        def measure_one(hedge_after_s: float | None) -> tuple[tuple[float, ...], float]:
            return asyncio.run(_round(up, hedge_after_s, seconds))

        found = in_turn({way: functools.partial(measure_one, way) for way in (None, HEDGE_AFTER_S)}, rounds)
    return [HedgingResult(after_s, *zip(*by_round, strict=True)) for after_s, by_round in found.items()]


def table(found: Sequence[HedgingResult]) -> Table:
    """Lay out the medians without hedging and with it."""
    title = f"A tail of 2 % at 100 ms: medians of {len(found[0].sent_per_call)} rounds"
    shown = tables.table("hedged after", *(f"p{p:g} ms" for p in _PERCENTILES), "requests a call", title=title)
    for result in found:
        percentiles = (f"{median(values):.1f}" for values in zip(*result.percentiles_ms, strict=True))
        after = f"{result.hedge_after_s * 1e3:g} ms" if result.hedge_after_s else "—"
        shown.add_row(after, *percentiles, f"{median(result.sent_per_call):.3f}")
    return shown


async def _round(up: Running, hedge_after_s: float | None, seconds: float) -> tuple[tuple[float, ...], float]:
    latencies_s: list[float] = []
    async with AsyncClient(f"grpc://{up.grpc}", hedge_after_s=hedge_after_s) as client:
        before, until = await _received(client), time.perf_counter() + seconds

        async def call() -> None:
            while (began := time.perf_counter()) < until:
                await client.infer("tail", {"IN": np.zeros(1, np.float32)})
                latencies_s.append(time.perf_counter() - began)

        await asyncio.gather(*(call() for _ in range(_CALLERS)))
        await asyncio.sleep(0.5)  # what was cancelled, and is counted late
        received = await _received(client) - before
    return tuple(np.percentile(latencies_s, _PERCENTILES) * 1e3), received / len(latencies_s)


async def _received(client: AsyncClient) -> int:
    """Count the requests that the server has come to the end of."""
    [model] = await client.statistics("tail")
    return sum(int(model["inference_stats"].get(end, {}).get("count", 0)) for end in ("success", "fail"))
