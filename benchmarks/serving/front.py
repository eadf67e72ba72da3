"""What the proxy in front of Triton costs a request: Triton alone, this checkout's proxy and another's, in turn.

Both proxies are the shipped configurations without TLS, which is the same for both and would hide a part of the
difference. One connection, requests one after another. Of each round it is the tenth percentile, which what else the
machine does hardly touches; the median over the rounds counts.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import own_server, results, target, workload
from benchmarks.errors import MeasurementError
from benchmarks.rounds import Interval, in_turn, median_interval, ratios
from cli import tables
from cli.tables import Table, console
from clients import Client
from contracts import layout
from contracts.golden import GoldenRequest
from deploy.triton.ports import free_ports
from deploy.triton.state import Running

_MODULE = "ngx_http_js_module.so"
_MODULES = "/usr/lib/nginx/modules"
_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        values = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", one.sum(keepdims=True))]) for one in values]
"""
MODELS = {"sum": (own_server.CONFIG.format(instances=1), _MODEL)}
_MADE_UP = GoldenRequest("sum", {"IN": np.ones(784, np.float32)}, {"OUT": np.array([784], np.float32)})


@dataclass(frozen=True)
class FrontResult:
    """One protocol: what each round gave, straight to Triton and through the two proxies."""

    protocol: str
    direct_p10_us: tuple[float, ...]
    old_p10_us: tuple[float, ...]
    new_p10_us: tuple[float, ...]

    @property
    def ratio(self) -> Interval:
        """New to old."""
        return median_interval(ratios(self.new_p10_us, self.old_p10_us))


def main(options: argparse.Namespace) -> int:
    """Measure, print and keep."""
    nginx = options.nginx or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        raise MeasurementError("there is no nginx here", hint="apt-get install nginx libnginx-mod-http-js")
    with ExitStack() as opened:
        if options.model:
            up = target.running()
            sent = workload.find(f"http://{up.http}", options.model, Path(up.repository)).requests[0]
        else:
            up, sent = opened.enter_context(own_server.serving_python_models(MODELS)), _MADE_UP
        checkouts = (options.against, layout.ROOT)
        old, new = (opened.enter_context(_proxy(Path(nginx).resolve(), checkout, up)) for checkout in checkouts)
        found = measure({"direct": (up.http, up.grpc), "old": old, "new": new}, sent, options.rounds, options.seconds)
    console().print(table(found, sent.model))
    results.keep("front", {"model": sent.model, "protocols": [asdict(result) for result in found]})
    return 0


def measure(ways: dict[str, tuple[str, str]], sent: GoldenRequest, rounds: int, seconds: float) -> list[FrontResult]:
    """Send the request by each of the ways, over both protocols, for so many seconds each.

    Args:
        ways: direct, old and new; the addresses for HTTP and for gRPC.
    """
    with ExitStack() as opened:
        clients = {
            (protocol, way): opened.enter_context(Client(f"{protocol}://{address}"))
            for way, addresses in ways.items()
            for protocol, address in zip(("http", "grpc"), addresses, strict=True)
        }
        found = in_turn({key: partial(_p10_us, client, sent, seconds) for key, client in clients.items()}, rounds)
    return [FrontResult(p, *(tuple(found[p, way]) for way in ("direct", "old", "new"))) for p in ("http", "grpc")]


def table(found: list[FrontResult], model: str) -> Table:
    """Lay out the medians of each protocol."""
    title = f"A request to {model}, 10th percentile in µs: medians of {len(found[0].new_p10_us)} rounds"
    shown = tables.table("", "Triton", "old proxy", "new proxy", "new / old (95 %)", title=title)
    for result in found:
        figures = (result.direct_p10_us, result.old_p10_us, result.new_p10_us)
        shown.add_row(result.protocol, *(f"{median(p10):,.0f}" for p10 in figures), str(result.ratio))
    return shown


def _p10_us(client: Client, sent: GoldenRequest, seconds: float) -> float:
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        client.infer(sent.model, sent.inputs)
        taken.append((time.perf_counter() - began) * 1e6)
    return sorted(taken)[len(taken) // 10]


@contextmanager
def _proxy(nginx: Path, checkout: Path, up: Running) -> Iterator[tuple[str, str]]:
    """Run the proxy of a checkout in front of this server, without TLS; yield its addresses."""
    http, grpc = free_ports(2)
    shipped = checkout / "deploy" / "nginx"
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(shipped, folder, dirs_exist_ok=True)
        text = (shipped / "nginx.conf").read_text()
        for old, new in (
            (f"{_MODULES}/{_MODULE}", str(nginx.parents[1] / "lib" / "nginx" / "modules" / _MODULE)),
            ("listen 8443 ssl http2", f"listen 127.0.0.1:{http}"),
            ("listen 8444 ssl http2", f"listen 127.0.0.1:{grpc} http2"),
            ("server 127.0.0.1:8000", f"server {up.http}"),
            ("server 127.0.0.1:8001", f"server {up.grpc}"),
            ("ssl_certificate certs/server.pem;", ""),
            ("ssl_certificate_key certs/server.key;", ""),
        ):
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)
        command = [str(nginx), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with (folder / "errors").open("w") as errors:
            process = subprocess.Popen(command, stderr=errors)
        try:
            _wait_for(folder / "nginx.pid", process, folder / "errors")
            yield f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(started: Path, process: "subprocess.Popen[bytes]", errors: Path) -> None:
    deadline = time.monotonic() + 10
    while not (started.exists() and started.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise MeasurementError("nginx does not start", note=errors.read_text())
        time.sleep(0.05)
