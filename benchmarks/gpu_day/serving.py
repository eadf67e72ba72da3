"""A server of a step's own: `python -m deploy up` in the foreground, so that it ends with the step."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from benchmarks.gpu_day import command
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import StepError
from contracts import layout
from deploy.neighbours import direct
from deploy.triton.ports import free_ports

_READY_S = 90.0
_DRAIN_S = "3"


@dataclass(frozen=True)
class Serving:
    """A server that is up."""

    day: Day
    artifacts: Path  # of its own: its log and its key
    http: str
    grpc: str
    metrics: str

    def deploy(self, *arguments: str) -> tuple[int, str]:
        """Run `python -m deploy ARGUMENTS…` about this server; return its exit code and what it said."""
        return command.run(self.day, "deploy", *arguments, artifacts=self.artifacts)

    def version(self) -> str:
        """Ask the server which Triton it is."""
        return str(json.loads(self.get("/v2"))["version"])

    def get(self, path: str) -> bytes:
        """Fetch `path` from its HTTP port."""
        return _get(f"http://{self.http}{path}")

    def get_metrics(self) -> str:
        """Fetch its metrics, as Prometheus does."""
        return _get(f"http://{self.metrics}/metrics").decode()

    def log(self) -> list[dict[str, Any]]:
        """Return the records of its log so far, oldest first."""
        folder = self.artifacts / "server"
        files = [*sorted(folder.glob("triton.jsonl.*"), reverse=True), folder / "triton.jsonl"]
        lines = [line for file in files if file.exists() for line in file.read_text(errors="replace").splitlines()]
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:  # the last one is being written
                continue
        return found


@contextmanager
def serving(day: Day, name: str, *options: str, repository: Path | None = None) -> Iterator[Serving]:
    """Serve the day's repository, on free ports, for as long as the block runs; its log becomes evidence.

    Args:
        name: Of its folder and its log.
        options: More for `deploy up`.

    Raises:
        StepError: it is not ready in time, or has ended.
    """
    http, grpc, metrics = free_ports()
    artifacts = day.work / "servers" / name
    artifacts.mkdir(parents=True, exist_ok=True)
    ports = {"http": http, "grpc": grpc, "metrics": metrics}
    arguments = [
        *("up", "--device", day.device, "--drain", _DRAIN_S, "--repository", str(repository or day.repository)),
        *(word for which, port in ports.items() for word in (f"--{which}-port", str(port))),
        *options,
    ]
    print(f"$ python -m deploy {' '.join(arguments)}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy", *arguments],
        cwd=layout.ROOT,
        env=day.environment(artifacts),
        stdin=subprocess.DEVNULL,
    )
    server = Serving(day, artifacts, *(f"127.0.0.1:{port}" for port in ports.values()))
    try:
        _wait_until_ready(server, process)
        yield server
    finally:
        process.terminate()
        process.wait()
        _keep_log(server, day.log(f"{name}-server"))


def _get(url: str) -> bytes:
    with direct.open_url(url, timeout_s=10) as response:
        content: bytes = response.read()
    return content


def _wait_until_ready(server: Serving, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StepError(f"`deploy up` ended with {process.returncode}", note="its last words are in the log")
        try:
            with direct.open_url(f"http://{server.http}/v2/health/ready", timeout_s=5):
                return
        except (URLError, OSError):  # nobody listens, or models are loading
            time.sleep(0.1)
    raise StepError(f"the server was not ready within {_READY_S:.0f} s")


def _keep_log(server: Serving, path: Path) -> None:
    newest = server.artifacts / "server" / "triton.jsonl"
    if newest.exists():
        shutil.copyfile(newest, path.with_suffix(".jsonl"))
