"""What is under way at this moment, by model and server, summed over the workers that live.

Prometheus' client cannot ask for a number at the moment of a scrape where there are several processes, so each worker
writes its own down: a second after a request, and once more a second after the last one.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

EVERY_S = 1.0
Reading = tuple[str, tuple[str, ...], float]  # a gauge's name, its labels, its value
_ARM, _SERVER = ("model", "arm"), ("server",)


class Gauges:
    """Written down by `refresh`, which requests call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        known: dict[str, Any] = {"registry": registry}
        live: dict[str, Any] = {**known, "multiprocess_mode": "livesum"}
        self._gauges = {
            "in_flight": Gauge("gateway_in_flight", "Requests at a model", _ARM, **live),
            "waiting": Gauge("gateway_waiting", "Requests that wait for a place", _ARM, **live),
            "circuit_open": Gauge(
                "gateway_circuit_open", "A model is left alone", _ARM, **known, multiprocess_mode="livemax"
            ),
            "server_up": Gauge("gateway_server_up", "A Triton is there", _SERVER, **known, multiprocess_mode="livemin"),
        }
        self._counters = {
            "unwanted": Counter(
                "gateway_unwanted", "Requests that Triton computes although nobody waits for them", _SERVER, **known
            ),
            "records_lost": Counter("gateway_records_lost", "Records that the spool could not take", (), **known),
        }
        self._counted: dict[tuple[str, ...], float] = {}
        self._read: Callable[[], Iterable[Reading]] = tuple
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Take the numbers from there."""
        self._read = read

    def refresh(self) -> None:
        """Write them down in a second, if that is not to be done already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.write)

    def write(self) -> None:
        """Write them down."""
        self._timer = None
        for name, labels, value in self._read():
            if counter := self._counters.get(name):
                of_these = counter.labels(*labels) if labels else counter
                of_these.inc(value - self._counted.get((name, *labels), 0.0))
                self._counted[name, *labels] = value
            else:
                self._gauges[name].labels(*labels).set(value)
