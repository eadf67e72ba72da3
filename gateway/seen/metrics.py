"""Prometheus metrics of the gateway, right across its worker processes.

With several workers PROMETHEUS_MULTIPROC_DIR names a folder, before this is imported, in which each keeps its own
counts in files: any of them answers for all. A key is a label on counters alone, and only so many keys are told apart.
"""

import os
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.errors import Refusal
from gateway.outcome import Outcome
from gateway.seen.gauges import Gauges

MOST_KEYS = 500  # those beyond are "other"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OWN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
_ARM = ("model", "release", "arm")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What is counted.

    Args:
        most_keys: That have counters of their own.
    """

    def __init__(self, registry: CollectorRegistry | None = None, most_keys: int = MOST_KEYS) -> None:
        self._most_keys = most_keys
        self.registry = registry or CollectorRegistry()
        with_registry: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter(
            "gateway_requests", "Requests that were let through to a model", (*_ARM, "door", "status"), **with_registry
        )
        self._rows = Counter("gateway_rows", "Inferences: the rows of those requests", _ARM, **with_registry)
        self._latency = Histogram(
            "gateway_request_seconds", "From arrival to the end of the answer", _ARM, buckets=_SECONDS, **with_registry
        )
        self._triton = Histogram("gateway_triton_seconds", "Of it, Triton's", _ARM, buckets=_SECONDS, **with_registry)
        self._queue = Histogram(
            "gateway_queue_seconds", "Of it, waiting for a place", _ARM, buckets=_SECONDS, **with_registry
        )
        self._own = Histogram(
            "gateway_own_seconds", "Of it, the gateway's own", _ARM, buckets=_OWN_SECONDS, **with_registry
        )
        self._refusals = Counter(
            "gateway_refusals", "Answers of the gateway itself", ("door", "reason", "status"), **with_registry
        )
        self._keys = Counter("gateway_key_requests", "Requests by key", ("key",), **with_registry)
        self._key_rows = Counter("gateway_key_rows", "Inferences by key", ("key",), **with_registry)
        self._gone = Counter("gateway_callers_gone", "Callers that went away before the answer", _ARM, **with_registry)
        self.quota_storage_gone = Counter(
            "gateway_quota_storage_gone", "Requests counted, or refused, without the quotas' storage", **with_registry
        )
        self.keys_stale = Counter(
            "gateway_keys_stale", "Failures to read the keys: those read last stay", **with_registry
        )
        self.gauges = Gauges(self.registry)
        self._children: dict[tuple[str, ...], tuple[Any, ...]] = {}
        self._named: dict[str, tuple[Counter, Counter]] = {}

    def finished(self, outcome: Outcome, own_s: float) -> None:
        """Count a request that is over."""
        asked = outcome.asked
        key = (asked.model, outcome.release, outcome.arm, asked.door, str(outcome.status))
        children = self._children.get(key) or self._make(key)
        requests, rows, latency, triton, queue, own, gone = children
        requests.inc()
        rows.inc(asked.rows)
        latency.observe(outcome.latency_s)
        queue.observe(outcome.queued_s)
        own.observe(own_s)
        if outcome.triton_s is not None:
            triton.observe(outcome.triton_s)
        if outcome.status == 499:
            gone.inc()
        if outcome.caller.key_id is not None:
            of_key, rows_of_key = self._of_key(outcome.caller.key_id)
            of_key.inc()
            rows_of_key.inc(asked.rows)

    def refused(self, door: str, refusal: Refusal) -> None:
        """Count an answer of the gateway itself."""
        self._refusals.labels(door, refusal.slug, str(refusal.status)).inc()

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it, of all workers together."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _make(self, key: tuple[str, ...]) -> tuple[Any, ...]:
        arm = key[:3]
        each = (self._rows, self._latency, self._triton, self._queue, self._own, self._gone)
        made = (self._requests.labels(*key), *(metric.labels(*arm) for metric in each))
        self._children[key] = made
        return made

    def _of_key(self, key_id: str) -> tuple[Counter, Counter]:
        found = self._named.get(key_id)
        if found is None:
            name = key_id if len(self._named) < self._most_keys else "other"
            found = self._keys.labels(name), self._key_rows.labels(name)
            if name != "other":
                self._named[key_id] = found
        return found
