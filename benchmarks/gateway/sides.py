"""What is compared: Triton alone, the gateway's two doors, nginx that asks the gateway; each with its processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from benchmarks.errors import MeasurementError
from cli.installing import debian
from contracts import layout
from deploy.triton.ports import free_ports
from deploy.triton.state import Running

_START_S = 30.0
MODEL = "sum"
# Every limit holds, and none is met: what they cost is in the figures.
_LIMITS = ("requests_short=1000000/second", "requests_long=1000000000/hour", "inferences_day=1000000000")


@dataclass(frozen=True)
class Side:
    """A way to the model.

    Attributes:
        port: Of 127.0.0.1.
        headers: That a request needs more here.
        processes: What works for it, Triton left out.
    """

    name: str
    port: int
    headers: str = ""
    processes: tuple[psutil.Process, ...] = field(default=())

    def cpu_s(self) -> float:
        """Return the processor time that its processes have taken so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    def memory_bytes(self) -> int:
        """Return their resident memory."""
        return sum(process.memory_info().rss for process in self.processes)


@contextmanager
def sides(up: Running, nginx: Path) -> Iterator[list[Side]]:
    """Start all of them in front of this server: direct, raw, nginx, typed."""
    with ExitStack() as opened:
        port, of_nginx = free_ports(2)
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        folder.chmod(0o755)
        key, gateway = opened.enter_context(_gateway(folder, port, up.http))
        authorization = f"Authorization: Bearer {key}\r\n"
        proxy = opened.enter_context(_nginx(nginx, folder, of_nginx, port, up.http))
        workers = tuple(proxy.children())
        yield [
            Side("direct", int(up.http.rpartition(":")[2])),
            Side("raw", port, authorization, (gateway,)),
            Side("nginx", of_nginx, authorization, (*workers, gateway)),
            Side("typed", port, authorization, (gateway,)),
        ]


def find_nginx(given: Path | None) -> Path:
    """Return an nginx: that one, or PATH's, or Debian's, unpacked into artifacts/tools.

    Raises:
        MeasurementError: there is none.
    """
    found = given or shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found:
        return Path(found).resolve()
    unpacked = layout.artifacts() / "tools" / "nginx"
    if not unpacked.exists():
        unpacked.mkdir(parents=True)
        try:
            debian.unpack(["nginx"], unpacked)
        except OSError as error:
            unpacked.rmdir()
            raise MeasurementError("there is no nginx here", note=str(error), hint="apt-get install nginx") from error
    return unpacked / "usr" / "sbin" / "nginx"


@contextmanager
def _gateway(folder: Path, port: int, triton: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run `python -m gateway up` with everything on; its key, and the process that answers."""
    with _receiver() as traces:
        environment = {
            **os.environ,
            "ARTIFACTS_DIR": str(folder / "artifacts"),
            "GATEWAY_TRITON__ENDPOINTS": f"http://{triton}",
            "GATEWAY_LISTEN__PORT": str(port),
            "GATEWAY_SEEN__OTLP_ENDPOINT": traces,
            "GATEWAY_SEEN__TRACE_SHARE": "0.01",
        }
        program = [sys.executable, "-m", "gateway"]
        limits = [word for limit in _LIMITS for word in ("--limit", limit)]
        made = subprocess.run(
            [*program, "keys", "create", "benchmark", "--json", *limits],
            cwd=layout.ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise MeasurementError("the gateway makes no key", note=made.stderr.strip())
        with (folder / "gateway.log").open("wb") as log:
            running = subprocess.Popen([*program, "up"], cwd=layout.ROOT, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(port, running, folder / "gateway.log")
            yield json.loads(made.stdout)["secret"], psutil.Process(running.pid)
        finally:
            running.terminate()
            running.wait(60)


@contextmanager
def _nginx(program: Path, folder: Path, port: int, gateway: int, triton: str) -> Iterator[psutil.Process]:
    text = (layout.ROOT / "deploy" / "nginx" / "gateway.conf").read_text()
    for old, new in (
        ("listen 8081", f"listen 127.0.0.1:{port}"),
        ("127.0.0.1:8080", f"127.0.0.1:{gateway}"),
        ("127.0.0.1:8000", triton),
    ):
        text = text.replace(old, new)
    (folder / "gateway.conf").write_text(text)
    user = ["-g", "user root;"] if os.geteuid() == 0 else []  # else it works as nobody, who cannot write there
    command = [str(program), "-e", "stderr", "-p", str(folder), "-c", str(folder / "gateway.conf"), *user]
    with (folder / "nginx.log").open("wb") as log:
        running = subprocess.Popen(command, stderr=log)
    try:
        _wait_for(port, running, folder / "nginx.log")
        yield psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(20)


@contextmanager
def _receiver() -> Iterator[str]:
    """Take spans and drop them; the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        server.shutdown()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise MeasurementError(f"{process.args!r} does not start", note=log.read_text()[-2000:])
        time.sleep(0.05)
