"""What is sent when: a scenario or recorded traffic, made into requests that are due."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks import target, workload
from benchmarks.scenarios import recording, scenario
from benchmarks.scenarios.recording import Recorded
from benchmarks.scenarios.scenario import ALL, Scenario
from benchmarks.scenarios.tally import Limits
from clients import Client
from contracts.golden import GoldenRequest
from deploy.triton.payload import Tensors

SEED = 0


@dataclass(frozen=True)
class Call:
    """A request, and what the idle server answers to it."""

    request: GoldenRequest
    idle: Tensors  # the outputs that are asked for


@dataclass(frozen=True)
class Planned:
    """A request that is due."""

    due_s: float  # since the start
    call: Call
    priority: int = 0  # 0: the server's default

    @property
    def of(self) -> str:
        """The class that it is counted in."""
        return _class_of(self.priority)


@dataclass(frozen=True)
class Settings:
    """What is sent, to which models, and what has to hold."""

    of: Scenario | tuple[Recorded, ...]
    models: tuple[str, ...]  # of a scenario
    limits: Limits
    outcome: str  # a file for what was counted; "": none

    @classmethod
    def of_options(cls, options: Any) -> Self:
        """Read Locust's options.

        Raises:
            MeasurementError: there is no such scenario, or the traffic cannot be read.
        """
        of: Scenario | tuple[Recorded, ...]
        if options.traffic:
            of = recording.read(Path(options.traffic), options.speed)
        else:
            of = scenario.named(options.scenario, options.rate, options.seconds)
        limits = Limits(options.p95_ms, options.p99_ms, options.max_errors)
        return cls(of, tuple(options.model), limits, options.outcome)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.of.seconds if isinstance(self.of, Scenario) else self.of[-1].at_s

    @property
    def judged(self) -> str:
        """The class of requests that the limits are for."""
        return self.of.judged if isinstance(self.of, Scenario) else ALL


def calls(host: str, settings: Settings) -> list[Call]:
    """Ask the idle server everything once.

    Raises:
        MeasurementError: there is nothing to send, or an answer is wrong.
        ClientError: the server does not answer, or has no such model.
    """
    if isinstance(settings.of, Scenario):
        requests = [
            request
            for model in settings.models
            for request in workload.find(host, model, target.repository()).of_rows(1)
        ]
        return [Call(*each) for each in zip(requests, workload.answers(host, requests), strict=True)]
    with Client(host) as client:
        for model in {recorded.request.model for recorded in settings.of}:
            client.metadata(model)  # whatever was recorded of another server
        different = {id(recorded.request): recorded for recorded in settings.of}.values()
        return [
            Call(each.request, client.infer(each.request.model, each.request.inputs, outputs=each.outputs))
            for each in different
        ]


def due(settings: Settings) -> Counter[str]:
    """Count how many requests of each class are due, whoever sends them."""
    if isinstance(settings.of, Scenario):
        all_ = len(settings.of.due_s(SEED))
        urgent = int(settings.of.are_urgent(all_, SEED).sum())
        return Counter({_class_of(0): all_ - urgent, _class_of(1): urgent})
    return Counter(_class_of(each.priority) for each in settings.of)


def planned(settings: Settings, calls: Sequence[Call]) -> list[Planned]:
    """Say what is due when, in that order; the same each time."""
    if isinstance(settings.of, Scenario):
        due_s = settings.of.due_s(SEED)
        urgent = settings.of.are_urgent(len(due_s), SEED)
        which = np.random.default_rng((SEED, 2)).integers(len(calls), size=len(due_s))
        return [
            Planned(at, calls[index], int(first))
            for at, index, first in zip(due_s.tolist(), which.tolist(), urgent.tolist(), strict=True)
        ]
    known = {id(call.request): call for call in calls}
    return [Planned(each.at_s, known[id(each.request)], each.priority) for each in settings.of]


def _class_of(priority: int) -> str:
    return f"priority {priority}" if priority else "default priority"
