"""What a variant costs on this machine, and whether a lower precision is worth its error.

A graph is timed by the clock on the wall, as a server's CPU would run it; a plan by the GPU's events, as Triton would.

Runs are paired: the variants take turns within one process, so that a machine that slows down slows all of them.
A ratio is one of neighbouring turns, and a lower precision has to be faster beyond doubt.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from contracts.manifest import Choice, Gate, Timing, Variant
from contracts.samples import Batch, Split
from contracts.spec import ModelSpec, Precision
from export.proof.runners import Runner, length

# A lower precision must be at least this much faster than the best higher one to be worth its error. Two graphs
# that onnxruntime computes alike have been 7 % apart on a shared machine.
WORTH_IT = 0.9
_SLOW_MS = 20.0  # a call of that length is a turn by itself
_FAR = 10.0  # times the median: a 99th percentile beyond is no property of a graph
_FEWEST_ROUNDS = 5  # of fewer ratios not even the largest is an upper 95 % bound of the median

Clock = Callable[[Batch], float]  # runs a batch, and returns the milliseconds that it took

# Milliseconds of one call: {runner: {batch size: [[of one turn], …]}}
Samples = Mapping[Precision, Mapping[int, Sequence[Sequence[float]]]]


def wall_clock(run: Runner) -> Clock:
    """Return what times a call of `run`, from and to memory of the host."""

    def call_ms(chunk: Batch) -> float:
        started = time.perf_counter()
        run(chunk)
        return (time.perf_counter() - started) * 1e3

    return call_ms


def measure(
    clocks: Mapping[Precision, Clock],
    chunks: Mapping[int, Batch],
    rounds: int = 20,
    burst: int = 5,
    budget_s: float = 20,
) -> Samples:
    """Time calls of every batch size of `chunks`, in turns of `burst`.

    Where the budget ends before, there are fewer rounds, at least five.

    The call before each turn does not count: onnxruntime's threads go on spinning for a moment after a call, and
    those of the runner before would be timed too (on two cores that doubled every figure).
    """
    samples: dict[Precision, dict[int, list[list[float]]]] = {name: {b: [] for b in chunks} for name in clocks}
    deadline = time.monotonic() + budget_s
    for done in range(rounds):
        if done >= _FEWEST_ROUNDS and time.monotonic() > deadline:
            break
        for batch, chunk in chunks.items():
            for name, call_ms in clocks.items():
                slow = call_ms(chunk) > _SLOW_MS
                samples[name][batch].append([call_ms(chunk) for _ in range(1 if slow else burst)])
    return samples


def is_disturbed(samples: Samples) -> bool:
    """Tell whether a 99th percentile is so far from its median that it says nothing of the graph: measure again."""
    return any(_disturbance(turns) for by_batch in samples.values() for turns in by_batch.values())


def choose_fastest(
    file: str, variants: Sequence[Variant], samples: Samples, batch: int
) -> tuple[Choice, list[Variant]]:
    """Choose the variant to serve as `file`; return the choice and all of `variants` with their timings.

    `variants` come in order of precision, highest first. A lower one is chosen if it takes at most WORTH_IT of the
    time of the best higher one at `batch`.
    """
    best, timed = variants[0], [with_timing(variants[0], file, _timing(samples[variants[0].precision]))]
    ratios = []
    for variant in variants[1:]:
        ratio, bound = _paired_ratio(samples[variant.precision][batch], samples[best.precision][batch])
        detail = f"{ratio:.2f} measured at batch {batch}, paired runs"
        name = f"{file}: share of {best.precision}'s time (95 % upper bound)"
        gate = Gate(name, bound, WORTH_IT, "at most", detail, id="worth_it")
        timed.append(with_timing(variant, file, replace(_timing(samples[variant.precision]), worth_it=gate)))
        ratios.append(f"{variant.precision} takes {ratio:.2f}× the time of {best.precision}")
        if gate.passed:
            best = variant
    median = next(v for v in timed if v.precision == best.precision).timings[file].median_ms[str(batch)]
    reason = "; ".join([f"{best.precision}: {median:.3g} ms at batch {batch}", *ratios])
    return Choice(file, best.precision, reason), timed


def medians(samples: Mapping[int, Sequence[Sequence[float]]]) -> dict[str, float]:
    """Return {batch size: the median of all calls}, as a manifest has it."""
    return {str(b): round(statistics.median(ms for turn in turns for ms in turn), 4) for b, turns in samples.items()}


def with_timing(variant: Variant, file: str, timing: Timing) -> Variant:
    """Return `variant` with its timing as `file`."""
    return replace(variant, timings={**variant.timings, file: timing})


def chunks(split: Split, spec: ModelSpec) -> dict[int, Batch]:
    """Return what is timed, {batch size: inputs}: one sample, what the engine is tuned for, and the most it takes."""
    if not spec.batched:
        return {1: next(split.batches(0))}
    return {size: _first(split.groups[0].inputs, size) for size in spec.batch_sizes}


def _timing(by_batch: Mapping[int, Sequence[Sequence[float]]]) -> Timing:
    calls = {batch: [ms for turn in turns for ms in turn] for batch, turns in by_batch.items()}
    medians = {batch: statistics.median(ms) for batch, ms in calls.items()}
    return Timing(
        median_ms={str(b): round(median, 4) for b, median in medians.items()},
        p99_ms={str(b): round(float(np.percentile(ms, 99)), 4) for b, ms in calls.items()},
        samples_per_s={str(b): round(b / median * 1e3, 1) for b, median in medians.items()},
        interval_ms={str(b): _interval(turns) for b, turns in by_batch.items()},
        disturbed="; ".join(f"batch {b}: {told}" for b, turns in by_batch.items() if (told := _disturbance(turns))),
    )


def _disturbance(turns: Sequence[Sequence[float]]) -> str:
    """Say how many calls are far from the median, if the 99th percentile is one of them; "" where it is not."""
    calls = [ms for turn in turns for ms in turn]
    far = _FAR * statistics.median(calls)
    if float(np.percentile(calls, 99)) <= far:
        return ""
    slow, struck = sum(ms > far for ms in calls), sum(any(ms > far for ms in turn) for turn in turns)
    whose = "other work on the machine" if struck <= len(turns) / 4 else "the machine was busy throughout"
    return f"{slow} of {len(calls)} calls took over {_FAR:g} × the median, in {struck} of {len(turns)} turns: {whose}"


def _interval(turns: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the 95 % interval of the median, from order statistics of the turns' medians, as below."""
    ordered = sorted(statistics.median(turn) for turn in turns)
    n, tail, k = len(ordered), 0.0, 0
    while k < n and tail + math.comb(n, k) / 2**n <= 0.025:
        tail += math.comb(n, k) / 2**n
        k += 1
    low = max(k - 1, 0)
    return round(ordered[low], 4), round(ordered[n - 1 - low], 4)


def _paired_ratio(turns: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the median ratio of neighbouring turns, and its upper 95 % bound.

    The bound is an order statistic: of n ratios, at least k are below the true median with the probability that a
    fair coin shows k heads in n throws.
    """
    pairs = zip(turns, others, strict=True)
    ratios = sorted(statistics.median(a) / statistics.median(b) for a, b in pairs)
    n, tail, k = len(ratios), 0.0, len(ratios)
    while k > 0 and tail + math.comb(n, k) / 2**n <= 0.05:
        tail += math.comb(n, k) / 2**n
        k -= 1
    return round(statistics.median(ratios), 4), round(ratios[min(k, n - 1)], 4)


def _first(inputs: Batch, count: int) -> Batch:
    """Take the first `count` samples, from the start again where there are fewer."""
    index = np.arange(count) % length(inputs)
    return {name: np.ascontiguousarray(values[index]) for name, values in inputs.items()}
