"""Which tests are heavy: they start a server, train or export. All others are what `make quick` runs."""

import sys
from pathlib import Path

import pytest

# The fixtures that do so themselves; whoever needs one of them, however far below, is heavy.
HEAVY_FIXTURES = frozenset(
    {
        *("checkpoint", "release", "examples", "server"),  # the session's own
        *("fashion", "graphs_of_fashion", "steps_once", "examples_made"),
        *("small", "heard", "tls", "mutual", "seen", "site", "up", "triton", "noting_server"),
    }
)
_TRACES = ("**/server/triton.jsonl", "**/artifacts/export/*", "**/artifacts/checkpoints/*")  # what each leaves behind

_tritons: list[str] = []  # started by this process


def mark(item: pytest.Item) -> None:
    """Mark a test whose fixtures are heavy; one that starts something itself has the marker already."""
    if HEAVY_FIXTURES & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.heavy)


def watch() -> None:
    """Notice every tritonserver that this process starts from now on."""

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event == "subprocess.Popen" and Path(str(arguments[0])).name == "tritonserver":
            _tritons.append(str(arguments[0]))

    sys.addaudithook(hear)


def found(folder: Path | None, before: int) -> list[str]:
    """What tells that a test was heavy: servers since `before`, and what stages leave in its folder."""
    left = [str(path) for pattern in _TRACES for path in (folder.glob(pattern) if folder else ())]
    return [*_tritons[before:], *left]


def count() -> int:
    """How many servers this process has started so far."""
    return len(_tritons)
