"""How a running server does: its models, what they have done, what their processes use.

Requests, batches and times are from Triton's statistics; latency quantiles (of about the last minute), queue depth
and the reasons of failures from its metrics; memory and CPU from the operating system.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploy.errors import RepositoryError
from deploy.neighbours import direct
from deploy.running import hold, warm_up, workers
from deploy.served import arms, inside, missing, unsealed
from deploy.served.arms import Arm
from deploy.triton import released, state
from deploy.triton.control import Control, ModelVersion
from deploy.triton.released import LeftOut
from deploy.triton.state import Running

EXIT_LEFT_OUT = 3  # of a command: what is left serves, and a model that should serve does not

_FAILED_INSIDE = "one_process_request_failures_total"  # of deploy/backends/inprocess; its reader adds the end
_QUANTILES = {"0.5": "p50", "0.95": "p95", "0.99": "p99"}  # of those that Triton keeps


@dataclass(frozen=True)
class WorkDone:
    """What a version has done since it was loaded, without its warm-up: counters that only grow."""

    requests: int = 0  # answered
    failures: int = 0
    rows: int = 0  # computed: a request brings one or more, unless the response cache answers it
    executions: int = 0  # of a batch of rows
    queue_s: float = 0  # that all requests have waited, added up
    compute_s: float = 0
    cache_hits: int = 0
    cache_misses: int = 0

    def since(self, before: "WorkDone | None") -> "WorkDone":
        """Return what was added; all of it if the version was loaded anew in between."""
        if before is None or before.requests > self.requests:
            return self
        return WorkDone(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))

    @property
    def average_batch(self) -> float | None:
        """Rows per execution; None without any."""
        return self.rows / self.executions if self.executions else None

    @property
    def queue_ms(self) -> float | None:
        """What a request waited on average; None without any."""
        return self.queue_s / self.requests * 1e3 if self.requests else None

    @property
    def compute_ms(self) -> float | None:
        """What a request that the response cache did not answer was computed for on average; None without any."""
        computed = self.requests - self.cache_hits
        return self.compute_s / computed * 1e3 if computed else None


@dataclass(frozen=True)
class Usage:
    """What a process takes."""

    pid: int
    cpu_s: float  # since it was started
    rss_bytes: int
    pss_bytes: int | None  # pages that several processes share count in part; None: not ours to see

    @classmethod
    def of(cls, process: psutil.Process) -> Self | None:
        """Measure a process; None if it has ended."""
        try:
            with process.oneshot():
                cpu, rss = process.cpu_times(), process.memory_info().rss
            try:
                pss = process.memory_full_info().pss
            except psutil.AccessDenied:
                pss = None
            return cls(process.pid, cpu.user + cpu.system, rss, pss)
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class VersionStatus:
    """A version of a model: how the server sees it, and how it does if it is loaded."""

    model: ModelVersion
    work: WorkDone | None = None
    batches: Mapping[int, int] = field(default_factory=dict)  # rows -> executions of so many
    pending: int = 0  # requests that wait now
    failures_by_reason: Mapping[str, int] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)  # "p50", "p95", "p99"; empty without requests
    workers: Sequence[Usage] = ()  # processes of the Python backend, one an instance


@dataclass(frozen=True)
class Status:
    """How a server did at one moment."""

    server: Running
    ready: bool
    at_s: float  # on the monotonic clock
    versions: Sequence[VersionStatus] = ()
    triton: Usage | None = None  # None: it has ended, and may be about to be restarted
    uptime_s: float = 0
    left_out: Sequence[LeftOut] = ()  # of its repository, as it is now
    arms: Sequence[Arm] = ()  # releases that stand beside those that serve
    unsealed: Sequence[str] = ()  # models that are served as they lie in the repository

    @property
    def exit_code(self) -> int:
        """What a command that looks returns: 0 only if all is ready that was released."""
        if not self.ready:
            return 1
        return EXIT_LEFT_OUT if any(group.failed for group in self.left_out) else 0

    @property
    def processes(self) -> list[Usage]:
        """What the server and every worker takes."""
        own = [self.triton] if self.triton else []
        return own + [worker for version in self.versions for worker in version.workers]


def look(server: Running) -> Status:
    """Ask `server` how it does now; the status has no versions while it does not answer."""
    with Control(server, timeout_s=2) as control:
        models = [model for model in control.models() if model.name != hold.NAME]
        statistics = {(s["name"], int(s["version"])): s for s in control.statistics()} if models else {}
        ready = bool(models) and server.phase == "ready" and control.ready()
    kept = arms.kept(Path(server.served))
    left_out = _left_out(server, models, kept)
    models = released.without(models, left_out)
    samples, used = _samples(server) if models else [], _workers(server)
    process = state.process(server.triton)
    return Status(
        server,
        ready,
        time.monotonic(),
        [
            _version(
                model,
                statistics.get((model.name, model.version)),
                server.warm_up.get(warm_up.key(model.name, model.version), warm_up.NOTHING),
                samples,
                used.get((model.name, model.version), ()),
            )
            for model in models
        ],
        Usage.of(process) if process else None,
        time.time() - process.create_time() if process else 0,
        left_out,
        [arm for arm in kept if not {*arm.names} & released.names(left_out)],
        [name for name in unsealed.names(Path(server.served)) if name != hold.NAME],
    )


def as_json(status: Status) -> dict[str, Any]:
    """Return what `status --json` prints."""
    server = status.server
    return {
        "running": True,
        "ready": status.ready,
        "phase": server.phase,
        "pid": server.triton.pid,
        "uptime_s": round(status.uptime_s, 1),
        "server_restarts": server.server_restarts,
        "worker_restarts": server.worker_restarts,
        "memory": server.memory,
        "http": server.http,
        "grpc": server.grpc,
        "metrics": server.metrics,
        "log": str(state.log_file()),
        "triton": status.triton and asdict(status.triton),
        "models": [_version_as_json(version) for version in status.versions],
        "left_out": [asdict(group) for group in status.left_out],
        "arms": [arm_as_json(arm) for arm in status.arms],
        "unsealed": list(status.unsealed),
    }


def arm_as_json(arm: Arm) -> dict[str, Any]:
    """Return what JSON has of a release that stands beside the one that serves."""
    return {"network": arm.network, "version": arm.version, "models": arm.names}


def _left_out(server: Running, models: Sequence[ModelVersion], kept: Sequence[Arm]) -> list[LeftOut]:
    """List what is not served: what failed, what is not released, and what was after the server had been started.

    Args:
        kept: The arms that were asked for; one that does not stand is left out, too.
    """
    root = Path(server.repository)
    serving = {model.name for model in models if model.state == "READY"}
    failed = {model: reason for model, reason in server.failed.items() if model not in serving}
    groups = missing.left_out(root, Path(server.served), server.config_name, failed)
    if not models:  # it does not answer
        return groups
    there = {path.parent.name for path in root.glob("*/config.pbtxt")}
    there -= {step for steps in inside.run_in(Path(server.served)).values() for step in steps}
    never_loaded = there - {model.name for model in models if not model.never_loaded}
    groups = [group for group in groups if group.failed or group.name in never_loaded]
    if since := sorted(never_loaded - released.names(groups)):
        reason = "it was put there after the server had been started"
        told = [f"{name}'s configuration is none" for name in since if not _has_config(root / name, server)]
        reason = "; ".join([reason, *told])
        groups.append(LeftOut(", ".join(since), tuple(since), reason, "python -m deploy reload"))
    return groups + [_fallen(arm, failed) for arm in kept if not serving.issuperset(arm.names)]


def _has_config(folder: Path, server: Running) -> bool:
    """Tell whether the configuration of a model is one."""
    try:
        released.config(folder, server.config_name)
    except RepositoryError:
        return False
    return True


def _fallen(arm: Arm, failed: Mapping[str, str]) -> LeftOut:
    """Say why an arm does not stand although it was asked for."""
    head, *_ = arm.names
    reasons = [failed[name] if name == head else f"{name}: {failed[name]}" for name in arm.names if name in failed]
    reason = "; ".join(reasons) or f"release {arm.version} does not stand beside the one that serves"
    command = f"python -m deploy arm {arm.network} {arm.version}"
    return LeftOut(head, arm.names, reason, command, failed=True, is_arm=True)


def _version_as_json(version: VersionStatus) -> dict[str, Any]:
    known = asdict(version.model)
    if (work := version.work) is None:
        return known
    return {
        **known,
        **asdict(work),
        "failures_by_reason": dict(version.failures_by_reason),
        "average_batch": work.average_batch,
        "batches": dict(version.batches),
        "pending": version.pending,
        "queue_ms": work.queue_ms,
        "compute_ms": work.compute_ms,
        "latency_ms": dict(version.latency_ms),
        "workers": [asdict(worker) for worker in version.workers],
    }


def _version(
    model: ModelVersion,
    statistics: Mapping[str, Any] | None,
    warmed: Mapping[str, Any],
    samples: Sequence[Sample],
    used: Sequence[Usage],
) -> VersionStatus:
    if statistics is None:
        return VersionStatus(model, workers=used)
    times = statistics["inference_stats"]
    compute_ns = sum(times[f"compute_{part}"]["ns"] for part in ("input", "infer", "output"))
    batches = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in statistics["batch_stats"]}
    own = [s for s in samples if (s.labels.get("model"), s.labels.get("version")) == (model.name, str(model.version))]
    # Of an ensemble in one process Triton counts them among the others.
    failed_inside = sum(int(s.value) for s in _named(own, _FAILED_INSIDE))
    return VersionStatus(
        model,
        WorkDone(
            requests=max(0, times["success"]["count"] - warmed["requests"] - failed_inside),
            failures=times["fail"]["count"] + failed_inside,
            rows=max(0, statistics["inference_count"] - warmed["rows"]),
            executions=max(0, statistics["execution_count"] - warmed["executions"]),
            queue_s=max(0, times["queue"]["ns"] - warmed["queue_ns"]) / 1e9,
            compute_s=max(0, compute_ns - warmed["compute_ns"]) / 1e9,
            cache_hits=times["cache_hit"]["count"],
            cache_misses=times["cache_miss"]["count"],
        ),
        batches={
            size: left for size, count in batches.items() if (left := count - warmed["batches"].get(str(size), 0)) > 0
        },
        pending=sum(int(s.value) for s in _named(own, "nv_inference_pending_request_count")),
        failures_by_reason={
            s.labels["reason"]: int(s.value) for s in _named(own, "nv_inference_request_failure_total") if s.value
        },
        latency_ms={
            _QUANTILES[quantile]: s.value / 1e3
            for s in _named(own, "nv_inference_request_summary_us")
            if (quantile := s.labels["quantile"]) in _QUANTILES and not math.isnan(s.value)
        },
        workers=used,
    )


def _named(samples: Sequence[Sample], name: str) -> Iterator[Sample]:
    return (sample for sample in samples if sample.name == name)


def _samples(server: Running) -> list[Sample]:
    try:
        with direct.open_url(server.metrics, timeout_s=2) as page:
            text = page.read().decode()
    except OSError:
        return []
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def _workers(server: Running) -> dict[tuple[str, int], list[Usage]]:
    found: dict[tuple[str, int], list[Usage]] = {}
    for process in workers.find(server.shared_memory):
        worker, usage = workers.identify(process), Usage.of(process)
        if worker is not None and usage is not None:
            found.setdefault((worker.model, worker.version), []).append(usage)
    return found
