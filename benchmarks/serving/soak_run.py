"""Half of a server's peak load for a long time: does a process grow, does a request fail?

Leaks hide in what is rare, so that is mixed in: batches and large images, inputs that have to be refused, connections
that come and go over both protocols, and a reload of every model, one after the other.
"""

import io
import itertools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.errors import MeasurementError
from benchmarks.serving import load, memory
from benchmarks.serving.memory import Growth, Sample
from benchmarks.workload import Workload
from cli.progress import Bar, bar
from clients import Client, ClientError, InvalidInputError
from clients.settings import Protocol
from contracts import repository
from contracts.golden import GoldenRequest
from deploy.errors import DeployError
from deploy.triton import state
from deploy.triton.control import Control
from deploy.triton.state import Running

_PEAK_CONNECTIONS = 16
_PIECE_S = 2.0  # of the load; each opens its connections anew
_BATCH = 16
_VISITORS = 10  # requests through the clients, each look
# gRPC tells the server of a client that has lost patience, and Triton 2.51 may crash then: see server issue 7368.
_PATIENCE_S = 60.0
_SHED = (load.Outcome.QUEUE_FULL.name, load.Outcome.QUEUE_TIMEOUT.name)
_AS_IT_SHOULD_BE = (load.Outcome.OK.name, "answered", "refused", *_SHED)  # a reload takes the cores for a while
_NO_IMAGES = (b"not an image", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class Settings:
    workload: Workload
    minutes: float = 30
    reload_every_s: float = 180  # 0: never
    limit_mb_per_h: float = 10  # faster growth is a finding

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def every_s(self) -> float:
        """A look at the processes."""
        return min(5.0, self.seconds / 60)

    @property
    def warm_up_s(self) -> float:
        """Of every process, those that a reload starts, too."""
        return self.seconds / 10


@dataclass(frozen=True)
class Reload:
    at_s: float
    model: str
    took_s: float
    error: str  # "": it was loaded


@dataclass
class Soak:
    """What was seen until now."""

    settings: Settings
    peak_per_s: float  # requests in a closed loop; half of them are sent
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcomes: Counter[str] = field(default_factory=Counter)  # of the load
    visits: Counter[str] = field(default_factory=Counter)  # through the clients
    latency_ms: list[NDArray[np.float32]] = field(default_factory=list)
    reloads: list[Reload] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def rate_per_s(self) -> float:
        return self.peak_per_s / 2

    @property
    def growth(self) -> list[Growth]:
        return memory.growth(self.samples, self.settings.warm_up_s)

    @property
    def findings(self) -> list[str]:
        """What is wrong, in a line each."""
        limit = self.settings.limit_mb_per_h
        failed = {said: n for said, n in (self.outcomes + self.visits).items() if said not in _AS_IT_SHOULD_BE}
        return [
            *(f"{g.name} grows by {g.mb_per_h:.1f} MB/h (limit: {limit:g})" for g in self.growth if g.over(limit)),
            *(f"{n:,} requests: {said}" for said, n in failed.items()),
            *(f"{r.model} was not reloaded: {r.error}" for r in self.reloads if r.error),
        ]


def run(server: Running, settings: Settings) -> Soak:
    """Soak it for so long, or until Ctrl-C.

    Raises:
        MeasurementError: the server does not answer, or wrong.
    """
    requests = load.with_answers(server.http, _requests(settings))
    seconds = min(5.0, settings.seconds / 5)
    log = load.closed_loop(server.http, requests, _PEAK_CONNECTIONS, seconds)
    if not (peak_per_s := log.per_s(seconds)):
        raise MeasurementError(f"no right answer from {server.http} within {seconds:g} s")
    soak, stop = Soak(settings, peak_per_s), threading.Event()
    with ThreadPoolExecutor(1) as pool, bar("soaking; Ctrl-C ends it early", settings.seconds) as shown:
        driving = pool.submit(_drive, server.http, requests, soak, stop)
        try:
            with suppress(KeyboardInterrupt):
                _watch(server, soak, driving, shown)
        finally:
            stop.set()
        driving.result()  # raises what it raised
    return soak


def _drive(address: str, requests: list[load.Request], soak: Soak, stop: threading.Event) -> None:
    """Send them at a steady rate, at random times, until told to stop."""
    random = np.random.default_rng(0)
    count = max(1, round(soak.rate_per_s * _PIECE_S))
    while not stop.is_set():
        schedule_s = random.exponential(1 / soak.rate_per_s, count).cumsum()
        try:
            log = load.open_loop(address, requests, schedule_s, random.integers(len(requests), size=count))
        except MeasurementError as error:  # it is down, and may be restarted
            soak.outcomes[str(error)] += 1
            stop.wait(1)
            continue
        soak.outcomes.update({load.Outcome(o).name: n for o, n in enumerate(np.bincount(log.outcome).tolist()) if n})
        soak.latency_ms.append((log.latency_s * 1e3).astype(np.float32))


def _watch(server: Running, soak: Soak, driving: "Future[None]", shown: Bar) -> None:
    """Look at the processes, call through the clients, and reload now and then."""
    settings, began = soak.settings, time.monotonic()
    with Control(server) as control:
        models = itertools.cycle(sorted(v.name for v in control.models() if v.state == "READY"))
    reload_at = settings.reload_every_s or math.inf
    for tick in itertools.count(1):
        at_s = time.monotonic() - began
        server = state.running() or server  # another process, after a restart
        soak.samples += memory.sample(server, at_s)
        shown.reach(at_s)
        if at_s >= settings.seconds or driving.done():
            return
        soak.visits += _visit(server, settings)
        if at_s >= reload_at:
            soak.reloads.append(_reload(server, next(models), at_s))
            reload_at += settings.reload_every_s
        time.sleep(max(0.0, began + tick * settings.every_s - time.monotonic()))


def _visit(server: Running, settings: Settings) -> Counter[str]:
    """Send some requests, and what has to be refused, through the clients over both protocols."""
    sent, seen = settings.workload, Counter[str]()
    for protocol, address in _protocols(server):
        with Client(f"{protocol}://{address}", timeout_s=_PATIENCE_S) as client:
            for request in sent.requests[:_VISITORS]:
                seen[_answered(client, request)] += 1
            for request in _of_no_image(sent):
                seen[_refused(client, request)] += 1
    malformed = load.responses(server.http, [load.build(_malformed(sent.requests[0]))])
    seen.update("refused" if r.startswith(b"HTTP/1.1 400") else f"not refused: {r[:80]!r}" for r in malformed)
    return seen


def _answered(client: Client, request: GoldenRequest) -> str:
    try:
        return request.fault(client.infer(request.model, request.inputs, outputs=[*request.answers])) or "answered"
    except ClientError as error:
        return str(error)


def _refused(client: Client, request: GoldenRequest) -> str:
    try:
        return f"not refused: {client.infer(request.model, request.inputs)}"
    except InvalidInputError:
        return "refused"
    except ClientError as error:
        return f"not refused: {error}"


def _of_no_image(sent: Workload) -> list[GoldenRequest]:
    """Make requests of an image model that hold no image; none of another model."""
    [row, *_] = sent.rows
    texts = _NO_IMAGES if sent.images else ()
    return [
        GoldenRequest(row.model, {name: np.full_like(values, text) for name, values in row.inputs.items()}, {})
        for text in texts
    ]


def _malformed(request: GoldenRequest) -> GoldenRequest:
    """Make a request that no model takes: its inputs have a dimension too many."""
    return GoldenRequest(request.model, {name: values[None] for name, values in request.inputs.items()}, {})


def _protocols(server: Running) -> Iterator[tuple[Protocol, str]]:
    yield "http", server.http
    if not server.grpc_tls:  # its certificate may be of another name
        yield "grpc", server.grpc


def _reload(server: Running, model: str, at_s: float) -> Reload:
    directory = Path(server.served) / model
    began, error = time.monotonic(), ""
    try:
        os.utime(directory / str(repository.versions(directory)[-1]))  # Triton loads only what has changed
        with Control(server) as control:
            control.load(model)
    except (OSError, DeployError) as failure:
        error = str(failure)
    return Reload(at_s, model, time.monotonic() - began, error)


def _requests(settings: Settings) -> list[load.Request]:
    """Build single samples, batches, and a large image if the model takes images."""
    sent = settings.workload
    batch = min(_BATCH, sent.max_batch_size)
    requests = [*sent.rows, *(sent.of_rows(batch)[:1] if batch > 1 else ())]
    if sent.images:
        large = io.BytesIO()
        Image.linear_gradient("L").resize((1000, 1000)).save(large, "JPEG")
        [row, *_] = sent.rows
        inputs = {name: np.full_like(values, large.getvalue()) for name, values in row.inputs.items()}
        requests.append(GoldenRequest(row.model, inputs, {}))
    return [load.build(request) for request in requests]
