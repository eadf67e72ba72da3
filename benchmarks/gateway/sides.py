"""What is compared: Triton alone, the gateway's two doors, nginx that asks the gateway; each with its processes."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from benchmarks.errors import MeasurementError
from benchmarks.gateway import started
from benchmarks.gateway.started import wait_for
from cli.installing import debian
from contracts import layout
from deploy.triton.ports import free_ports
from deploy.triton.state import Running

MODEL = "sum"


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
        [of_nginx] = free_ports(1)
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        folder.chmod(0o755)
        traces = {"seen__otlp_endpoint": opened.enter_context(_receiver()), "seen__trace_share": "0.01"}
        gateway = opened.enter_context(started.gateway(folder, [up.http], started.NEVER_MET, **traces))
        authorization = f"Authorization: {gateway.authorization}\r\n"
        proxy = opened.enter_context(_nginx(nginx, folder, of_nginx, gateway.port, up.http))
        workers = tuple(proxy.children())
        yield [
            Side("direct", int(up.http.rpartition(":")[2])),
            Side("raw", gateway.port, authorization, (gateway.process,)),
            Side("nginx", of_nginx, authorization, (*workers, gateway.process)),
            Side("typed", gateway.port, authorization, (gateway.process,)),
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
        wait_for(port, running, folder / "nginx.log")
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
