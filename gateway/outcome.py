"""What is asked, and what became of it: what metrics, traces, the record and the log are made of."""

import time
from dataclasses import dataclass, field
from typing import Any

from gateway.caller import Caller
from gateway.deadline import Deadline

MOST_CALLER_ID = 200  # characters, as the store has room for


@dataclass(frozen=True)
class Asked:
    """What a caller asks for.

    Attributes:
        door: "raw" or "typed".
        action: "infer".
        rows: Inferences: the batch, 1 of a model that has none.
        priority: A class, 1 to 3; None is the default.
        request_id: The gateway's own, which nobody can guess: the key of its record.
        arrived: On the monotonic clock.
    """

    door: str
    model: str
    version: str | None
    action: str
    rows: int
    priority: int | None
    deadline: Deadline
    request_id: str
    traceparent: str | None = None
    arrived: float = field(default_factory=time.monotonic)


@dataclass
class Outcome:
    """What became of a request that was let through.

    Attributes:
        status: Of HTTP, as the caller got it; 499: its caller went away.
        began_ns: When it arrived, ns since 1970.
        queued_s: In front of the gateway's gate, and while no Triton was there.
        triton_s: From the request's first byte to the answer's first; None: no answer.
        inputs, outputs: A summary, for the record.
        payload: Where all of the inputs were written to.
        caller_id: What the caller calls the request; of a long one, its begin.
    """

    asked: Asked
    caller: Caller
    arm: str
    release: str
    status: int = 0
    began_ns: int = field(default_factory=time.time_ns)
    queued_s: float = 0.0
    triton_s: float | None = None
    latency_s: float = 0.0
    endpoint: str = ""
    inputs: dict[str, Any] | None = None
    outputs: dict[str, Any] | None = None
    payload: str | None = None
    caller_id: str | None = None

    def record(self) -> dict[str, Any]:
        """Return it as the store keeps it."""
        return {
            "kind": "prediction",
            "id": self.asked.request_id,
            "time": self.began_ns,
            "door": self.asked.door,
            "key": self.caller.key_id,
            "model": self.asked.model,
            "release": self.release,
            "arm": self.arm,
            "rows": self.asked.rows,
            "latency_ms": round(self.latency_s * 1e3, 3),
            "triton_ms": None if self.triton_s is None else round(self.triton_s * 1e3, 3),
            "status": self.status,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "payload": self.payload,
            "caller_id": (self.caller_id or "").replace("\0", "\ufffd")[:MOST_CALLER_ID] or None,
        }

    def own_s(self, now: float) -> float:
        """Return the gateway's own share of the time so far: without its queue, and without Triton."""
        return now - self.asked.arrived - self.queued_s - (self.triton_s or 0.0)

    def timing(self) -> str:
        """Write `Server-Timing`: the gateway's own share, its queue, Triton; in ms."""
        own_ms, queued_ms = self.own_s(time.monotonic()) * 1e3, self.queued_s * 1e3
        triton = f", triton;dur={self.triton_s * 1e3:.2f}" if self.triton_s is not None else ""
        return f"gateway;dur={own_ms:.2f}, queue;dur={queued_ms:.2f}{triton}"
