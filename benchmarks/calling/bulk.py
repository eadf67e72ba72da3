"""What `classify_many` gains over a loop of `classify`."""

import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.errors import MeasurementError
from benchmarks.rounds import in_turn
from benchmarks.workload import Workload
from cli import tables
from cli.tables import Table
from clients import Client, Prediction
from clients.core.tasks import CLASSIFY_OUTPUTS
from clients.settings import Protocol


@dataclass(frozen=True)
class BulkResult:
    """Many images over one protocol, and what each round gave."""

    images: int
    protocol: str
    many_per_s: tuple[float, ...]  # through classify_many
    loop_per_s: tuple[float, ...]  # one after the other

    @property
    def ratio(self) -> float:
        return median(self.many_per_s) / median(self.loop_per_s)


def applies(url: str, sent: Workload) -> bool:
    """Tell whether the model is one for `classify`: images come in, and labels with their scores out."""
    with Client(url) as client:
        outputs = {tensor.name for tensor in client.metadata(sent.model).outputs}
    return bool(sent.images) and outputs >= {*CLASSIFY_OUTPUTS}


def measure(addresses: Mapping[Protocol, str], sent: Workload, count: int, rounds: int) -> list[BulkResult]:
    """Classify `count` images at once, then a tenth of them one by one.

    Args:
        addresses: host:port of each protocol.
        sent: Its images are sent in turn.

    Raises:
        MeasurementError: an image was not classified.
    """
    many = [*itertools.islice(itertools.cycle(sent.images), count)]

    def both(protocol: Protocol) -> tuple[float, float]:
        with Client(f"{protocol}://{addresses[protocol]}") as client:
            client.classify(many[0], model=sent.model)  # connects
            began = time.perf_counter()
            if failed := [o for o in client.classify_many(many, model=sent.model) if not isinstance(o, Prediction)]:
                raise MeasurementError(f"{len(failed):,} images failed", note=str(failed[0]))
            many_s = time.perf_counter() - began
            few = many[: -(-count // 10)]
            began = time.perf_counter()
            for image in few:
                client.classify(image, model=sent.model)
            return len(many) / many_s, len(few) / (time.perf_counter() - began)

    found = in_turn({protocol: functools.partial(both, protocol) for protocol in addresses}, rounds)
    return [BulkResult(count, protocol, *zip(*by_round, strict=True)) for protocol, by_round in found.items()]


def table(results: Sequence[BulkResult]) -> Table:
    """Lay out the medians, a row a protocol."""
    title = f"{results[0].images:,} images: medians of {len(results[0].many_per_s)} rounds"
    shown = tables.table("", "classify_many/s", "a loop of classify/s", "×", title=title)
    for result in results:
        medians = (f"{median(per_s):,.0f}" for per_s in (result.many_per_s, result.loop_per_s))
        shown.add_row(result.protocol, *medians, f"{result.ratio:.1f}")
    return shown
