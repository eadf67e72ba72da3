"""The peers: how each is started, as its own documentation recommends for throughput, and what of it is searched."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import limit
from benchmarks.peers import wire
from benchmarks.peers.wire import Wire

APPS = Path(__file__).with_name("apps")
Settings = Mapping[str, Any]
# Programs of its environment, the port, the settings -> the command.
Command = Callable[[Path, int, Settings], list[str]]


@dataclass(frozen=True, eq=False)
class Peer:
    """A server that people would take in place of this one."""

    name: str
    label: str
    environment: str  # of configs/environments
    packages: tuple[str, ...]  # whose versions are told
    command: Command
    space: Mapping[str, tuple[Any, ...]]  # {setting: values that are tried}, the first is where the search starts
    source: str  # what it is set up after
    wire: Wire = wire.PLAIN
    variables: Mapping[str, str] = field(default_factory=dict)  # of its environment
    last_words: str = ""  # of its start, where it answers before that is over
    halts: bool = True  # it goes on after it was stopped for minutes; else it is started for each of its turns

    @property
    def start(self) -> dict[str, Any]:
        """Return the settings that the search starts from."""
        return {name: values[0] for name, values in self.space.items()}

    @property
    def combinations(self) -> int:
        """Count what there would be to try."""
        return len([*itertools.product(*self.space.values())])


def _uvicorn(app: str) -> Command:
    def command(programs: Path, port: int, settings: Settings) -> list[str]:
        options = ["--port", str(port), "--workers", str(settings["workers"]), "--no-access-log"]
        return [str(programs / "uvicorn"), f"{app}:app", *options, "--log-level", "warning"]

    return command


def _script(app: str) -> Command:
    def command(programs: Path, port: int, settings: Settings) -> list[str]:
        return [str(programs / "python"), str(APPS / f"{app}.py"), str(port)]

    return command


def _bentoml(programs: Path, port: int, settings: Settings) -> list[str]:
    return [str(programs / "bentoml"), "serve", "bentoml_app:Task", "--host", "127.0.0.1", "--port", str(port)]


def _from_cores(*others: int) -> tuple[int, ...]:
    """Begin with a process a core; then the other values, of which that may be one."""
    return tuple(dict.fromkeys((limit.cores(), *others)))


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "fastapi-inline",
            "FastAPI, inline",
            "peer-fastapi",
            ("fastapi", "uvicorn"),
            _uvicorn("fastapi_inline"),
            {"workers": _from_cores(2, 1), "threads": (1, 2)},
            "https://www.uvicorn.org/deployment/",
        ),
        Peer(
            "fastapi-pool",
            "FastAPI, thread pool",
            "peer-fastapi",
            ("fastapi", "uvicorn"),
            _uvicorn("fastapi_pool"),
            {"workers": _from_cores(2, 1), "threads": (1, 2), "pool": (40, 1, 2, 4)},
            "https://fastapi.tiangolo.com/async/",
        ),
        Peer(
            "litserve",
            "LitServe",
            "peer-litserve",
            ("litserve",),
            _script("litserve_app"),
            {
                "max_batch_size": (8, 16, 64, 1),
                "batch_timeout": (0.001, 0.0, 0.005),
                "workers_per_device": _from_cores(2, 1),
                "num_api_servers": _from_cores(2, 1),
                "fast_queue": (True, False),
                "threads": (1, 2),
            },
            "https://lightning.ai/docs/litserve/features/batching",
        ),
        Peer(
            "bentoml",
            "BentoML",
            "peer-bentoml",
            ("bentoml",),
            _bentoml,
            {
                "workers": _from_cores(2, 1),
                "batchable": (True, False),
                "max_batch_size": (100, 16),
                "max_latency_ms": (60_000, 1000),
                "threads": (1, 2),
            },
            "https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html",
            wire.LISTS,
            {"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Peer(
            "ray",
            "Ray Serve",
            "peer-ray",
            ("ray",),
            _script("ray_app"),
            {
                "haproxy": (True, False),
                "replicas": _from_cores(2, 1),
                "max_ongoing_requests": (100, 32),
                "max_batch_size": (8, 16, 1),
                "batch_wait_timeout_s": (0.0, 0.001, 0.01),
                "threads": (1, 2),
            },
            "https://docs.ray.io/en/latest/serve/advanced-guides/performance.html",
            variables={
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
                "RAY_raylet_start_wait_time_s": "120",
            },
            last_words="is started, all of it",
            halts=False,
        ),
        Peer(
            "mlserver",
            "MLServer",
            "peer-mlserver",
            ("mlserver",),
            _script("mlserver_app"),
            {
                "parallel_workers": _from_cores(2, 0, 1),
                "max_batch_size": (16, 64, 0),
                "max_batch_time": (0.001, 0.005, 0.02),
                "threads": (1, 2),
            },
            "https://mlserver.readthedocs.io/en/latest/user-guide/adaptive-batching.html",
            wire.V2,
        ),
    )
}
