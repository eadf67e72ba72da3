"""Records as what answers requests makes them; imported by processes that answer, so of nothing that is slow."""

import time
from typing import Any

DAY_NS = 86_400_000_000_000


def prediction(number: int | str, **other: Any) -> dict[str, Any]:
    """A record with the id r<number>."""
    return {
        "kind": "prediction", "id": f"r{number}", "time": time.time_ns(), "door": "raw", "key": "web",
        "model": "boats", "release": "7", "arm": "main", "rows": 2, "status": 200,
        "latency_ms": 3.25, "triton_ms": 2.5, "payload": None,
        "inputs": {"image": {"bytes": 784}}, "outputs": {"label": "shoe", "score": 0.5}, **other,
    }  # fmt: skip


def label(number: int, request: str, value: Any, **other: Any) -> dict[str, Any]:
    """A label with the id l<number>."""
    return {
        "kind": "label", "id": f"l{number}", "request": request, "value": value, "time": time.time_ns(), "key": "web",
        **other,
    }  # fmt: skip


def event(number: int, name: str = "conversion", **other: Any) -> dict[str, Any]:
    """An event with the id e<number>."""
    return {"kind": "event", "id": f"e{number}", "name": name, "time": time.time_ns(), "key": "web", **other}
