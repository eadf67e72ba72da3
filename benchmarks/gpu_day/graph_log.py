"""What Triton's TensorRT backend says of CUDA graphs in its log, with --log-verbose=1.

Its own words (tensorrt_backend r26.07, src/instance_state.cc):
  captured CUDA graph for NAME_0_0, batch size 16
  Context with profile default [0] is launching CUDA graph for NAME_0_0
  Context with profile default [0] is being executed for NAME_0_0
A capture that fails is an error or a warning, and the model is served without that graph.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_CAPTURED = re.compile(r"^captured CUDA graph for (?P<instance>\S+), batch size (?P<batch>\d+)$")
_LAUNCHED = re.compile(r"^Context with profile .* is launching CUDA graph for (?P<instance>\S+)$")
_EXECUTED = re.compile(r"^Context with profile .* is being executed for (?P<instance>\S+)$")
_FAILED = re.compile(
    r"^(?:unable to (?:record|start|finish|instantiate|destroy|execute) (?:CUDA )?graph"
    r"|stream capture is not invalidated|Failed to set cuda graph shape"
    r"|Detected shape tensor, CUDA graph is not captured)"
)


@dataclass(frozen=True)
class GraphLog:
    """What was said of CUDA graphs."""

    captured: Mapping[tuple[str, int], int]  # {(instance, batch size): how often}
    launched: int  # executions by a graph
    executed: int  # executions without one
    failures: tuple[str, ...]

    @property
    def instances(self) -> list[str]:
        """The instances that captured a graph."""
        return sorted({instance for instance, _ in self.captured})

    @property
    def batches(self) -> list[int]:
        """The batch sizes that were captured."""
        return sorted({batch for _, batch in self.captured})


def read(records: Iterable[Mapping[str, Any]]) -> GraphLog:
    """Read the records of a server's log, as `deploy logs --json` prints them."""
    captured: Counter[tuple[str, int]] = Counter()
    launched, executed, failures = 0, 0, []
    for record in records:
        message = str(record["message"])
        if found := _CAPTURED.search(message):
            captured[found["instance"], int(found["batch"])] += 1
        elif _LAUNCHED.search(message):
            launched += 1
        elif _EXECUTED.search(message):
            executed += 1
        elif _FAILED.search(message):
            failures.append(message)
    return GraphLog(dict(captured), launched, executed, tuple(failures))
