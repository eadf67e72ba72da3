"""A scenario from Locust, through the client library: an open loop of golden requests, whose answers are checked.

  python -m benchmarks scenario spike --rate 200 --p99-ms 50          starts it, and prints the verdict
  locust -f benchmarks/scenarios/locustfile.py --scenario spike --rate 200 --p99-ms 50 -u 32 -r 32
                                                                      the same by hand, with its page
  … --master, and as often as you like on other machines … --worker   the load is shared

-u is how many requests may be under way: one that finds all of them busy waits, and its wait is counted. The host is
the server that `deploy up` started; --host http://HOST:PORT or grpc://HOST:PORT names another one.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]  # its stubs are a package of their own
import grpc.experimental.gevent as grpc_gevent
from gevent.event import Event  # type: ignore[import-untyped]  # as above
from locust import User, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from benchmarks import target
from benchmarks.scenarios import plan
from benchmarks.scenarios.plan import Call, Planned, Settings
from benchmarks.scenarios.scenario import ALL
from benchmarks.scenarios.tally import Tally, findings, merged, outcome
from cli.terminal import plain
from clients import Client, ClientError, Retry
from contracts import layout
from contracts.errors import ProjectError
from contracts.files import whole
from deploy.triton import payload

_OVER = "scenario_over"  # a worker to its master: what it counted
_PATIENCE_S = 15.0  # after the last request was due


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust has no types here
def add_options(parser: Any) -> None:
    """Add the scenario's own; a worker gets them from its master."""
    parser.add_argument("--scenario", default="steady", help="steady, ramp, spike, mixed (default: steady)")
    parser.add_argument("--rate", type=float, default=50, help="requests/s at its height (default: 50)")
    parser.add_argument("--seconds", type=float, default=30, help="that it takes (default: 30)")
    parser.add_argument("--traffic", default="", help="a file of recorded traffic, in place of a scenario")
    parser.add_argument("--speed", type=float, default=1, help="of recorded traffic (default: 1)")
    parser.add_argument("--model", nargs="+", default=[layout.DEFAULT_FAMILY], help="in turn")
    parser.add_argument("--p95-ms", type=float, default=None, help="limit of what is judged")
    parser.add_argument("--p99-ms", type=float, default=None, help="limit of what is judged")
    parser.add_argument("--max-errors", type=float, default=0.0, help="share of what is judged (default: 0)")
    parser.add_argument("--outcome", default="", help="a file for what was counted, as JSON")


class Load:
    """What one process sends, and what became of it."""

    def __init__(self) -> None:
        self.begun, self.over = Event(), Event()
        self.began = 0.0
        self.planned: Iterator[Planned] = iter(())
        self.tallies: dict[str, Tally] = {}
        self.left = Counter[str]()  # not answered yet, by class
        self.spawned = Event()
        self.client: Client | None = None

    def begin(self, planned: list[Planned]) -> None:
        """Start the clock."""
        self.left = Counter(each.of for each in planned)
        self.planned, self.began = iter(planned), time.perf_counter()
        self.begun.set()
        if not planned:
            self.over.set()

    def now_s(self) -> float:
        return time.perf_counter() - self.began

    def count(self, name: str, latency_ms: float, error: str, *, late: bool) -> None:
        """Count what became of a request."""
        for each in dict.fromkeys((ALL, name)):
            tally = self.tallies.setdefault(each, Tally())
            tally.late += late
            if error:
                tally.failed(error)
            else:
                tally.answered(latency_ms)
        self.left[name] -= 1
        if not self.left.total():
            self.over.set()

    def give_up(self) -> None:
        """Count what has no answer yet as failed."""
        for name, count in self.left.items():
            for each in dict.fromkeys((ALL, name)) if count else ():
                self.tallies.setdefault(each, Tally()).errors["no answer"] += count


_load = Load()
_reported: list[dict[str, Tally]] = []  # by workers


class Caller(User):
    """One of those who take the next request that is due, and wait for its answer."""

    host = target.http_url()

    @task
    def call(self) -> None:
        _load.begun.wait()
        planned = next(_load.planned, None)
        if planned is None or _load.client is None:
            raise StopUser
        late = _load.now_s() > planned.due_s + 0.001
        if not late:
            gevent.sleep(max(0.0, planned.due_s - _load.now_s()))
        call, error = planned.call, ""
        try:
            answer = _load.client.infer(
                call.request.model, call.request.inputs, outputs=[*call.idle], priority=planned.priority
            )
            error = payload.fault(call.request, answer, call.idle) or ""
        except ClientError as failure:
            error = plain(str(failure).splitlines()[0])
        latency_ms = 1e3 * (_load.now_s() - planned.due_s)
        _load.count(planned.of, latency_ms, error, late=late)
        events.request.fire(  # type: ignore[no-untyped-call]  # locust has no types here
            request_type="infer",
            name=f"{call.request.model}{', priority 1' if planned.priority else ''}",
            response_time=latency_ms,
            response_length=0,
            exception=RuntimeError(error) if error else None,
            context={},
        )


@events.init.add_listener  # type: ignore[untyped-decorator]  # as above
def listen(environment: Any, runner: Any, **_: object) -> None:
    """Take what workers count."""
    if isinstance(runner, MasterRunner):
        runner.register_message(
            _OVER, lambda environment, msg: _reported.append({k: Tally.of(v) for k, v in msg.data.items()})
        )


@events.test_start.add_listener  # type: ignore[untyped-decorator]  # as above
def prepare(environment: Any, **_: object) -> None:
    """Ask the idle server, so that Locust's time goes into sending, and wait for all callers."""
    global _load
    _load, runner = Load(), environment.runner
    _reported.clear()
    try:
        settings = Settings.of_options(environment.parsed_options)
        if isinstance(runner, MasterRunner):
            environment.parsed_options.parts = runner.worker_count  # with the other options they get it, too
            _start(_end_of_all, environment, settings)
            return
        host = environment.host or Caller.host
        if host.startswith("grpc"):
            grpc_gevent.init_gevent()  # else a call blocks all callers of its process
        calls = plan.calls(host, settings)
        _load.client = Client(host, retry=Retry(max_attempts=1))
    except ProjectError as error:
        print(plain(f"error: {error}"), file=sys.stderr)
        environment.process_exit_code = 1
        gevent.spawn(runner.quit)
        return
    _start(_run, environment, settings, calls, _load)


@events.spawning_complete.add_listener  # type: ignore[untyped-decorator]  # as above
def go(**_: object) -> None:
    """Begin in all processes at about the same time."""
    _load.spawned.set()


def _start(of: Callable[..., None], environment: Any, *arguments: object) -> None:
    """Run it beside what is sent; where it fails, as on a full disk, nobody waits for it."""

    def fail(failed: Any) -> None:
        print(plain(f"error: {failed.exception}"), file=sys.stderr)
        environment.process_exit_code = 1
        environment.runner.quit()

    gevent.spawn(of, environment, *arguments).link_exception(lambda failed: gevent.spawn(fail, failed))


def _run(environment: Any, settings: Settings, calls: Sequence[Call], load: Load) -> None:
    """Send this process's part of the load, and tell what became of it."""
    load.spawned.wait()
    runner = environment.runner
    parts = getattr(environment.parsed_options, "parts", 1)
    part = slice(getattr(runner, "worker_index", 0) % parts, None, parts)
    load.begin(plan.planned(settings, calls)[part])
    load.over.wait(settings.seconds + _PATIENCE_S)
    load.give_up()
    if isinstance(runner, WorkerRunner):
        runner.send_message(_OVER, {name: tally.as_json() for name, tally in load.tallies.items()})
    else:
        _end(environment, settings, load.tallies)


def _end_of_all(environment: Any, settings: Settings) -> None:
    """Wait for what each worker counted, and end."""
    workers, until = environment.runner.worker_count, time.monotonic() + settings.seconds + 2 * _PATIENCE_S
    while len(_reported) < workers and time.monotonic() < until:
        gevent.sleep(0.1)
    found, told = merged(_reported), f"{workers - len(_reported)} of {workers} workers did not report"
    for name, count in plan.due(settings).items():
        lost = count - found.get(name, Tally()).requests
        for each in (ALL, name) if lost else ():
            found.setdefault(each, Tally()).errors[told] += lost
    _end(environment, settings, found)


def _end(environment: Any, settings: Settings, tallies: Mapping[str, Tally]) -> None:
    """Judge, and end; with its page, Locust goes on showing it."""
    outcomes = [outcome(name, tally, settings.seconds) for name, tally in sorted(tallies.items())]
    told = findings(outcomes, settings.judged, settings.limits)
    if settings.outcome:
        whole.write(Path(settings.outcome), json.dumps([asdict(each) for each in outcomes]))
    print("\n".join(plain(f"✗ {found}") for found in told) or "✓ It holds the limits", file=sys.stderr)
    environment.process_exit_code = 1 if told else 0
    if environment.web_ui is None:
        environment.runner.quit()
    else:
        environment.runner.stop()
