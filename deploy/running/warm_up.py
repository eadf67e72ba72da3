"""What a version has done before its first request: Triton counts its warm-up as if somebody had asked for that.

The counters are read when a version is first seen. Before the server is ready nobody but us has asked. Of a version
that is loaded later requests may have come by then; how many of those that were counted were warm-up its configuration
tells, and times are shared out by that.
"""

from collections.abc import Mapping
from typing import Any

from deploy.errors import ModelError
from deploy.triton.control import Control

_COUNTERS = ("requests", "rows", "executions", "queue_ns", "compute_ns")
NOTHING: Mapping[str, Any] = {**dict.fromkeys(_COUNTERS, 0), "batches": {}}
_COMPUTE = ("compute_input", "compute_infer", "compute_output")


class WarmUps:
    """The warm-ups of the versions that one server has loaded, noted as they appear."""

    def __init__(self) -> None:
        self.noted: dict[str, dict[str, Any]] = {}  # {"MODEL/VERSION": as `of` has it}
        self._counted: dict[str, int] = {}

    def begin(self, control: Control) -> None:
        """Note all that the versions of a server have done that is about to be said to be ready."""
        for statistics in control.statistics():
            version = key(statistics["name"], statistics["version"])
            self.noted[version], self._counted[version] = all_of(statistics), statistics["execution_count"]

    def look(self, control: Control) -> bool:
        """Note what is new, and what was loaded anew: its counters have begun again. Return whether anything was."""
        found = False
        for statistics in control.statistics():
            version, counted = key(statistics["name"], statistics["version"]), statistics["execution_count"]
            if counted < self._counted.get(version, counted + 1):
                try:
                    config = control.config(statistics["name"])
                except ModelError:  # it is gone again
                    continue
                self.noted[version], found = of(statistics, config), True
            self._counted[version] = counted
        return found


def key(model: str, version: int | str) -> str:
    """Name a version as `WarmUps.noted` does."""
    return f"{model}/{version}"


def all_of(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a version's statistics have counted, as `of` does."""
    times = statistics["inference_stats"]
    return {
        "requests": times["success"]["count"],
        "rows": statistics["inference_count"],
        "executions": statistics["execution_count"],
        "queue_ns": times["queue"]["ns"],
        "compute_ns": sum(times[part]["ns"] for part in _COMPUTE),
        "batches": {str(batch["batch_size"]): batch["compute_infer"]["count"] for batch in statistics["batch_stats"]},
    }


def of(statistics: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a version's statistics was its warm-up, as JSON can keep it.

    Args:
        statistics: Triton's, of a version that has just been loaded.
        config: The one that it was loaded with.

    Returns:
        {"requests": …, "rows": …, "executions": …, "queue_ns": …, "compute_ns": …, "batches": {rows: executions}}.
    """
    batches: dict[str, int] = {}
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", ())) or 1
    for sample in config.get("model_warmup", ()):
        size = str(sample.get("batch_size", 0))
        batches[size] = batches.get(size, 0) + max(1, int(sample.get("count", 0))) * instances
    batches.pop("0", None)  # Triton skips it
    times = statistics["inference_stats"]
    counted = times["success"]["count"]
    # One request for each row of a batch.
    rows = min(counted, sum(int(size) * count for size, count in batches.items()))
    if not rows:
        return dict(NOTHING)
    share = rows / counted
    return {
        "requests": rows,
        "rows": rows,
        "executions": min(statistics["execution_count"], sum(batches.values())),
        "queue_ns": int(times["queue"]["ns"] * share),
        "compute_ns": int(sum(times[part]["ns"] for part in _COMPUTE) * share),
        "batches": batches,
    }
