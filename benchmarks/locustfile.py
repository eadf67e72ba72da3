"""Load from Locust, over HTTP: the golden requests of a model's release, or images; a wrong answer is a failure.

  locust -f benchmarks/locustfile.py --headless -u 16 -t 30s
  locust -f benchmarks/locustfile.py --model NAME OTHER …     several models, in turn

The host is the server that `deploy up` started; --host http://HOST:PORT names another one. Without --headless, Locust
serves its page with live charts on http://localhost:8089.
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from locust import FastHttpUser, constant, events, task

from benchmarks import target, wire, workload
from cli.terminal import plain
from contracts import layout
from contracts.errors import ProjectError
from contracts.golden import GoldenRequest
from deploy.triton import payload
from deploy.triton.payload import Tensors


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust has no types here
def add_options(parser: Any) -> None:
    """Add what Locust does not know of a model."""
    models = {"nargs": "+", "env_var": "MODEL", "default": [layout.DEFAULT_FAMILY]}
    parser.add_argument("--model", **models, help="default: the ensemble of the default family")
    parser.add_argument("--images", env_var="IMAGES", help="a folder of .png files, in place of golden requests")


@events.init.add_listener  # type: ignore[untyped-decorator]  # as above
def prepare(environment: Any, **_: object) -> None:
    """Build every request once, so that Locust's time goes into sending them, and ask the idle server."""
    options, host = environment.parsed_options, environment.host or Infer.host
    images = Path(options.images) if options.images else None
    for model in options.model:
        try:
            found = workload.find(host, model, target.repository(), images)
            idle = workload.answers(host, found.requests)
        except ProjectError as error:
            raise SystemExit(plain(f"error: {error}")) from error
        Infer.calls += [Call(each, *wire.body(each), answer) for each, answer in zip(found.requests, idle, strict=True)]
        print(plain(f"{model}: {found}"), file=sys.stderr)


@dataclass(frozen=True)
class Call:
    """A request, ready to be sent, and what the idle server answers to it."""

    request: GoldenRequest
    body: bytes
    header_length: int
    idle: Tensors


class Infer(FastHttpUser):
    """Sends one request after the other, as fast as the answers come."""

    host = target.http_url()
    wait_time = constant(0)
    calls: ClassVar[list[Call]] = []
    users = itertools.count()

    def on_start(self) -> None:
        self.turn = itertools.cycle(self.calls)
        for _ in range(next(self.users) % len(self.calls)):  # no two send the same at a time
            next(self.turn)

    @task
    def infer(self) -> None:
        call = next(self.turn)
        with self.client.post(
            f"/v2/models/{call.request.model}/infer",
            data=call.body,  # type: ignore[arg-type]  # bytes pass through, its annotation forgot them
            headers={wire.HEADER_LENGTH: str(call.header_length)},
            name=f"infer ({call.request.model})",
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(plain(f"{response.status_code}: {response.text}"))
                return
            length = response.headers.get(wire.HEADER_LENGTH)
            try:
                answer = wire.answer(response.content, int(length) if length else None)
            except ValueError as error:
                response.failure(plain(str(error)))
                return
            if told := payload.fault(call.request, answer, call.idle):
                response.failure(plain(told))
