"""A scenario with Locust, in processes of its own, and what became of it."""

import argparse
import json
import socket
import sys
from pathlib import Path

from benchmarks.errors import MeasurementError
from benchmarks.releases import child
from benchmarks.scenarios.tally import Outcome
from contracts import layout
from deploy.triton.ports import free_ports

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_HERE = "127.0.0.1"


def run(url: str, options: argparse.Namespace, folder: Path) -> list[Outcome]:
    """Run what `python -m benchmarks scenario` was asked for.

    Args:
        url: grpc://host:port or http://.
        folder: For the outcome.

    Raises:
        MeasurementError: nothing was counted, with what Locust said.
    """
    outcome = folder.resolve() / "outcome.json"
    outcome.unlink(missing_ok=True)  # of an earlier run
    command = [*_command(url, options), "--outcome", str(outcome)]
    if options.page:
        print(f"Locust's page: http://localhost:{options.page}; Ctrl-C ends it", file=sys.stderr)
    try:
        done = child.run(command, layout.ROOT, silent=not options.page)
    except KeyboardInterrupt:
        if not outcome.is_file():
            raise  # else the scenario was over, and its page is looked at no more
    else:
        if not outcome.is_file():
            lines = done.stderr.splitlines()
            said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines[-3:]
            told = f"Locust ended with {done.returncode}, and nothing was counted"
            raise MeasurementError(told, note="\n".join(said))
    return [Outcome(**each) for each in json.loads(outcome.read_text())]


def _command(url: str, options: argparse.Namespace) -> list[str]:
    found = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--host", url]
    found += ["-u", str(options.connections), "-r", str(options.connections), "--model", *options.model]
    if options.traffic:
        found += ["--traffic", str(options.traffic.resolve()), "--speed", str(options.speed)]
    else:
        found += ["--scenario", options.scenario, "--rate", str(options.rate), "--seconds", str(options.seconds)]
    limits = {"--p95-ms": options.p95_ms, "--p99-ms": options.p99_ms, "--max-errors": options.max_errors}
    found += [word for name, value in limits.items() if value is not None for word in (name, str(value))]
    if options.processes:
        [port] = map(str, free_ports(1))  # another scenario may be under way
        found += ["--processes", str(options.processes), "--master-bind-host", _HERE]
        found += ["--master-bind-port", port, "--master-port", port]
    if not options.page:
        return [*found, "--headless", "--only-summary", "--loglevel", "WARNING"]
    _require_free(options.page)
    return [*found, "--autostart", "--web-host", _HERE, "--web-port", str(options.page)]


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HERE, port))
        except OSError as error:
            told = f"Locust's page cannot be at port {port}: {error.strerror}"
            raise MeasurementError(told, hint="--page with another one") from error
