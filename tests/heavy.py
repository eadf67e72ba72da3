"""Which tests are heavy: they start a server, train or export. All others are what `make quick` runs.

With pytest-xdist (`-n 2 --dist loadgroup`) the heavy ones are two groups, each in a process of its own: what waits for
servers most of the time, and what computes. What the session makes once is made once for both.
"""

import fcntl
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.workspace import FAMILY

# The fixtures that do so themselves; whoever needs one of them, however far below, is heavy.
_SHARED = frozenset({"checkpoint", "release", "examples", "server"})  # the session's own
HEAVY_FIXTURES = frozenset(
    {
        *_SHARED,
        *(FAMILY, "graphs_of_fashion", "steps_once", "examples_made"),
        *("small", "every_task", "heard", "tls", "mutual", "seen", "any_model", "site", "up", "ended", "triton"),
        *("noting_server", "echoing", "neighbour", "typed_triton", "gateway"),
    }
)
_SERVING = ("benchmarks", "clients", "deploy", "gateway", "model_repository")  # and whatever uses the session's server
_TRACES = ("**/server/triton.jsonl", "**/artifacts/export/*", "**/artifacts/checkpoints/*")  # what each leaves behind

_tritons: list[str] = []  # started by this process


def mark(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures are heavy; one that starts something itself has the marker already.

    Last in the group that serves come the files that need what the session makes once: the other group makes it
    meanwhile, and nobody waits for it.
    """
    served = {item.path for item in items if "server" in _fixtures(item)}
    for item in items:
        if HEAVY_FIXTURES & _fixtures(item):
            item.add_marker(pytest.mark.heavy)
        if item.get_closest_marker("heavy"):
            folder = item.path.relative_to(Path(__file__).parent).parts[0]
            group = "serving" if item.path in served or folder in _SERVING else "computing"
            item.add_marker(pytest.mark.xdist_group(group))
    waiting = {item.path for item in items if _SHARED & _fixtures(item)}
    items.sort(key=lambda item: item.path in waiting and _group(item) == "serving")


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else ""


def check_groups(config: pytest.Config) -> None:
    """See that pytest-xdist can tell its processes of the groups.

    Raises:
        pytest.UsageError: it cannot; both processes would start the session's server.
    """
    # It writes them into this attribute, which pytest 9.2 does not read any more.
    if getattr(config.option, "dist", "no") == "loadgroup" and not hasattr(pytest.Item, "_nodeid"):
        raise pytest.UsageError(
            f"pytest-xdist's groups do nothing with pytest {pytest.__version__}\nHint: pip install 'pytest<9.2'"
        )


def _fixtures(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def once(stamp: Path, make: Callable[[], object]) -> None:
    """Call `make` unless another process of this session has, or is just doing so: then wait for it."""
    with stamp.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            make()
            stamp.touch()


@cache  # a second hook would count everything twice
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
