"""Upgrade a server, put bad models beside the good ones, kill it, under load: what do its clients notice?

It is done to a copy of the repository. Every event is the command that a user types, or what happens to a server, with
quiet time before and after it. What the requests say of it is in `results.py`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tritonclient.http import InferenceServerClient

from cli.progress import Bar, bar
from contracts import layout
from contracts.errors import ProjectError
from deploy.devices.chosen import Device
from deploy.drill.events import EVENTS, Action
from deploy.drill.results import DrillResult, Event
from deploy.drill.server_copy import DrillCopy, server_over_a_copy
from deploy.drill.traffic import Connect, Traffic, tritonclient_connection
from deploy.errors import DrillError
from deploy.triton import payload
from deploy.triton.payload import Payload
from deploy.versions import ensembles

_PATIENCE_S = 60.0  # for every connection to be answered again
_SILENCE = f"not every connection is answered right {_PATIENCE_S:.0f} s later"


@dataclass(frozen=True)
class DrillSettings:
    """What to drill, and how much."""

    repository: Path = field(default_factory=layout.model_repository)
    model: str | None = None  # the one that is upgraded; by default the first release
    images: tuple[Path, ...] = ()  # to send, in place of golden requests; without those examples, or what is made up
    requests: int = 20_000  # at least
    connections: int = 8
    device: Device = "auto"
    ensembles: bool = False  # as of up
    quiet_s: float = 3.0  # at least, between the events


def drill(
    settings: DrillSettings,
    events: Sequence[tuple[str, Action, float | None]] = EVENTS,
    connect: Connect = tritonclient_connection,
    *,
    retries: bool = False,
) -> DrillResult:
    """Make `events` happen one after the other, under load, and say on stderr how far it is.

    Args:
        connect: How the requests are sent; by default without retries.
        retries: Whether it sends them again: what the picture says.

    Raises:
        DrillError: there is no release to upgrade, or the server does not start, or does not answer as it should.
    """
    began = datetime.now(UTC)
    with (
        bar("drill", settings.requests, "requests") as shown,
        server_over_a_copy(
            settings.repository, settings.model, shown.say, settings.device, ensembles=settings.ensembles
        ) as copy,
    ):
        sends = choose(copy, settings)
        shown.say(f"{settings.connections} connections send requests to {sends.model}; {copy.model} is upgraded")
        shown.say(f"They send {sends}")
        addresses = {"http": copy.http, "grpc": copy.grpc}
        with Traffic(addresses, sends.model, sends.requests, settings.connections, connect) as traffic:
            bound = [(name, partial(act, copy), limit_s) for name, act, limit_s in events]
            done = under_load(traffic, bound, settings, shown)
            sent = traffic.sent()
    return DrillResult(began, sends.model, settings.connections, tuple(sent), tuple(done), str(sends), retries)


def under_load(
    traffic: Traffic, events: Sequence[tuple[str, Callable[[], str], float | None]], settings: DrillSettings, shown: Bar
) -> list[Event]:
    """Make the events happen one after the other, with quiet time before and after each; what became of them."""
    done: list[Event] = []
    for number, (name, act, limit_s) in enumerate(events, start=1):
        _quiet(traffic, settings, number / (len(events) + 1), shown)
        done.append(_happen(traffic, name, act, limit_s))
        shown.say(f"{'✗' if done[-1].problem else '✓'} {name}: {done[-1].problem or done[-1].detail}")
        if _SILENCE in done[-1].problem:
            return done
    _quiet(traffic, settings, 1, shown)
    return done


def _happen(traffic: Traffic, name: str, act: Callable[[], str], limit_s: float | None) -> Event:
    """Make it happen, and wait until every connection is answered again."""
    start_s, detail, problem = traffic.now_s(), "", ""
    try:
        detail = act()
    except ProjectError as error:
        problem = str(error)
    done_s = traffic.now_s()
    while not traffic.answered_since(done_s):
        if traffic.now_s() > done_s + _PATIENCE_S:
            silence = f"{_SILENCE}: {traffic.last_error()}"
            problem = f"{problem}; {silence}" if problem else silence
            break
        time.sleep(0.01)
    return Event(name, start_s, traffic.now_s(), limit_s, detail, problem)


def _quiet(traffic: Traffic, settings: DrillSettings, share: float, shown: Bar) -> None:
    """Leave the server in peace for a while, until that share of the requests was sent."""
    until_s = traffic.now_s() + settings.quiet_s
    while traffic.now_s() < until_s or traffic.count() < share * settings.requests:
        shown.reach(traffic.count())
        time.sleep(0.1)


def choose(copy: DrillCopy, settings: DrillSettings) -> Payload:
    """Choose whom the requests go to, the ensemble above the model if there is one, and what is in them."""
    models = [*ensembles.containing(copy.repository, copy.model), copy.model]
    if not settings.images:
        for model in models:
            if found := payload.from_release(copy.repository, model):
                return found
    with InferenceServerClient(copy.http) as client:
        metadata = client.get_model_metadata(models[0])
    texts = len(payload.no_image(metadata)) < len(metadata["inputs"])
    if settings.images and not texts:
        raise DrillError(f"{models[0]} takes no images", note=f"its inputs: {payload.inputs_of(metadata)}")
    pictures = (settings.images or (_examples(models[0]) if texts else ()))[: settings.connections]
    if not pictures:
        return payload.made_up(metadata, settings.connections)
    which = "" if settings.images else ": no golden requests"
    return payload.of_images(metadata, [path.read_bytes() for path in pictures], f"{len(pictures)} images{which}")


def _examples(model: str) -> tuple[Path, ...]:
    folder = layout.examples() / model
    return tuple(sorted(path for path in folder.glob("*") if path.suffix in payload.IMAGE_SUFFIXES))
