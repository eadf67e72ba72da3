"""Upgrade a server and kill parts of it, under load: what do its clients notice? On a copy of the repository.

Every event is the command that a user types, with quiet time before and after it. What the requests say of it is
in `results.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tritonclient.http import InferenceServerClient

from cli.progress import Bar, bar
from contracts import layout
from contracts.errors import ProjectError
from deploy.drill.events import EVENTS, Action
from deploy.drill.results import DrillResult, Event
from deploy.drill.server_copy import DrillCopy, server_over_a_copy
from deploy.drill.traffic import Connect, Tensors, Traffic, tritonclient_connection
from deploy.triton import payload
from deploy.versions import ensembles

_PATIENCE_S = 60.0  # for every connection to be answered again
_SILENCE = f"not every connection is answered {_PATIENCE_S:.0f} s later"
_PICTURES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class DrillSettings:
    """What to drill, and how much."""

    repository: Path = field(default_factory=layout.model_repository)
    model: str | None = None  # the one that is upgraded; by default the first release
    images: tuple[Path, ...] = ()  # what is sent for inputs of strings; by default examples, or plain grey
    requests: int = 20_000  # at least
    connections: int = 8
    quiet_s: float = 3.0  # at least, between the events


def drill(
    settings: DrillSettings,
    events: Sequence[tuple[str, Action, float | None]] = EVENTS,
    connect: Connect = tritonclient_connection,
) -> DrillResult:
    """Make `events` happen one after the other, under load, and say on stderr how far it is.

    Args:
        connect: How the requests are sent; by default without retries.

    Raises:
        DrillError: there is no release to upgrade, or the server does not start or answer.
    """
    began = datetime.now(UTC)
    done: list[Event] = []
    with (
        bar("drill", settings.requests, "requests") as shown,
        server_over_a_copy(settings.repository, settings.model, shown.say) as copy,
    ):
        model, payloads = _payloads(copy, settings)
        shown.say(f"{settings.connections} connections send requests to {model}; {copy.model} is upgraded")
        with Traffic(copy.http, copy.grpc, model, payloads, settings.connections, connect) as traffic:
            for number, (name, act, limit_s) in enumerate(events, start=1):
                _quiet(traffic, settings, number / (len(events) + 1), shown)
                done.append(_happen(traffic, copy, name, act, limit_s))
                shown.say(f"{'✗' if done[-1].problem else '✓'} {name}: {done[-1].problem or done[-1].detail}")
                if done[-1].problem.endswith(_SILENCE):
                    break
            else:
                _quiet(traffic, settings, 1, shown)
            sent = traffic.sent()
    return DrillResult(began, model, settings.connections, tuple(sent), tuple(done))


def _happen(traffic: Traffic, copy: DrillCopy, name: str, act: Action, limit_s: float | None) -> Event:
    """Make it happen, and wait until every connection is answered again."""
    start_s, detail, problem = traffic.now_s(), "", ""
    try:
        detail = act(copy)
    except ProjectError as error:
        problem = str(error)
    done_s = traffic.now_s()
    while not traffic.answered_since(done_s):
        if traffic.now_s() > done_s + _PATIENCE_S:
            problem = f"{problem}; {_SILENCE}" if problem else _SILENCE
            break
        time.sleep(0.01)
    return Event(name, start_s, traffic.now_s(), limit_s, detail, problem)


def _quiet(traffic: Traffic, settings: DrillSettings, share: float, shown: Bar) -> None:
    """Leave the server in peace for a while, until that share of the requests was sent."""
    until_s = traffic.now_s() + settings.quiet_s
    while traffic.now_s() < until_s or traffic.count() < share * settings.requests:
        shown.reach(traffic.count())
        time.sleep(0.1)


def _payloads(copy: DrillCopy, settings: DrillSettings) -> tuple[str, list[Tensors]]:
    """Choose whom the requests go to, the ensemble above the model if there is one, and what is in them."""
    model = next(iter(ensembles.containing(copy.repository, copy.model)), copy.model)
    examples = (layout.examples() / model).glob("*") if (layout.examples() / model).is_dir() else ()
    pictures = settings.images or sorted(path for path in examples if path.suffix in _PICTURES)
    count = settings.connections
    contents = [path.read_bytes() for path in pictures[:count]] or [
        payload.grey_png(255 * i // count) for i in range(count)
    ]
    with InferenceServerClient(copy.http) as client:
        metadata = client.get_model_metadata(model)
    return model, [payload.inputs_for(metadata, content) for content in contents]
