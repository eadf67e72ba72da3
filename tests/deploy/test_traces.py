"""Spans of requests reach an OTLP receiver, and requests do not care whether it is well."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient import http as http_client

from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy.conftest import write_model

if TYPE_CHECKING:  # it takes seconds to import
    from mlflow.entities import Span, Trace

RATE = 10
ENSEMBLE = """
name: "both"
platform: "ensemble"
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling { step [
  { model_name: "first" model_version: -1 input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "M" } },
  { model_name: "second" model_version: -1 input_map { key: "IN" value: "M" } output_map { key: "OUT" value: "OUT" } }
] }
"""


@dataclass(frozen=True)
class Traced:
    """A server of the ensemble `both` that sends its spans somewhere."""

    workspace: Workspace
    http: str
    grpc: str

    def infer(self, client: Any = grpc, count: int = 1, **options: Any) -> None:
        tensor = client.InferInput("IN", [1], "FP32")
        tensor.set_data_from_numpy(np.zeros(1, np.float32))
        with client.InferenceServerClient(self.grpc if client is grpc else self.http) as connection:
            for _ in range(count):
                connection.infer("both", [tensor], **options)

    def log(self) -> list[str]:
        """What the server has logged, the newest last."""
        lines = self.workspace.must("deploy", "logs", "--lines", "1000", "--json").splitlines()
        return [json.loads(line)["message"] for line in lines]


@contextmanager
def traced(root: Path, endpoint: str, rate: int) -> Iterator[Traced]:
    workspace, ports = Workspace(root), free_ports()
    write_model(workspace.repository, "first")
    write_model(workspace.repository, "second")
    (workspace.repository / "both" / "1").mkdir(parents=True)
    (workspace.repository / "both" / "config.pbtxt").write_text(ENSEMBLE)
    traces = ("--otlp-endpoint", endpoint, "--trace-rate", str(rate))
    up = ("deploy", "up", "--detach", "--drain", "10", "--repository", workspace.repository)
    workspace.must(*up, *traces, *port_options(ports))
    try:
        yield Traced(workspace, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    finally:
        workspace.down()


@contextmanager
def mlflow_server(root: Path) -> Iterator[str]:
    """A real tracking server, which takes traces over OTLP; its address. Not yet up."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    store = ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--default-artifact-root", str(root)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (root / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *store], cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too; nothing in it is worth a slow farewell
        process.wait()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@dataclass(frozen=True)
class Seen:
    """What MLflow has received from a server that traces one request in RATE."""

    traces: "Sequence[Trace]"

    @property
    def ids(self) -> set[str]:
        return {trace.info.trace_id.removeprefix("tr-") for trace in self.traces}

    @property
    def continued(self) -> dict[str, str]:
        """Of a client's traces, those that Triton continued, and the id of the request."""
        of_grpc = {trace_id: grpc.__name__ for trace_id in OVER_GRPC if trace_id in self.ids}
        assert of_grpc
        return {**of_grpc, OVER_HTTP: http_client.__name__}

    def of(self, trace_id: str) -> "dict[str, Span]":
        [trace] = [trace for trace in self.traces if trace.info.trace_id == f"tr-{trace_id}"]
        return {span.name: span for span in trace.data.spans if span.name != "compute"}


CALLER = "00f067aa0ba902b7"
OVER_HTTP = "5bf92f3577b34da6a3ce929d0e0e4736"
OVER_GRPC = [f"{number}bf92f3577b34da6a3ce929d0e0e4737" for number in range(1, 9)]  # Triton does not notice all
SAMPLED = 4
FEW = 5  # of thousands, each traced, Triton 2.51 answers one wrongly, or dies of it: docs/how-to/observe.md


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("traces")
    with pytest.MonkeyPatch.context() as patch, mlflow_server(root) as receiver:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-mlflow-experiment-id=0")
        with traced(root, f"{receiver}/v1/traces", RATE) as server:
            wait_for(lambda: answers(f"{receiver}/health"), timeout_s=120)
            server.infer(count=SAMPLED * RATE)
            for client, trace_id in (*((grpc, trace_id) for trace_id in OVER_GRPC), (http_client, OVER_HTTP)):
                parent = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
                server.infer(client, headers=parent, request_id=client.__name__)

            def received() -> "Sequence[Trace]":
                return list(MlflowClient(receiver).search_traces(locations=["0"]))

            wait_for(lambda: OVER_HTTP in Seen(received()).ids)  # the last
            server.workspace.must("deploy", "down")  # which sends what is left
        yield Seen(received())


def test_the_steps_of_an_ensemble_are_children_with_their_model_and_version(seen: Seen) -> None:
    for trace_id, request_id in seen.continued.items():
        spans = seen.of(trace_id)
        assert set(spans) == {"InferRequest", "both", "first", "second"}
        assert spans["both"].parent_id == spans["InferRequest"].span_id
        assert spans["first"].parent_id == spans["second"].parent_id == spans["both"].span_id
        for name in ("both", "first", "second"):
            assert spans[name].attributes["triton.model_name"] == name
            assert spans[name].attributes["triton.model_version"] == 1
            assert spans[name].attributes["triton.request_id"] == request_id
        assert spans["first"].end_time_ns <= spans["second"].end_time_ns


def test_a_clients_trace_is_continued(seen: Seen) -> None:
    for trace_id in seen.continued:
        assert seen.of(trace_id)["InferRequest"].parent_id == CALLER


def test_one_request_in_so_many_is_traced_besides_those_of_a_clients_traces(seen: Seen) -> None:
    assert len(seen.ids - {*OVER_GRPC, OVER_HTTP}) == SAMPLED


@contextmanager
def hanging_receiver(bodies: list[dict[str, Any]]) -> Iterator[str]:
    """Takes what it is sent, and never answers."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            over.wait()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{receiver.server_address[1]}/v1/traces"
        over.set()
        receiver.shutdown()


@pytest.mark.heavy
def test_requests_succeed_while_the_receiver_hangs(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []
    with hanging_receiver(bodies) as endpoint, traced(tmp_path, endpoint, rate=1) as server:
        server.infer(count=FEW)
        wait_for(lambda: bodies)
        server.infer(count=FEW)
    resource = {a["key"]: a["value"]["stringValue"] for a in bodies[0]["resourceSpans"][0]["resource"]["attributes"]}
    assert resource["service.name"] == "triton"


@pytest.mark.heavy
def test_requests_succeed_while_the_receiver_is_down_and_the_log_says_that_it_is(tmp_path: Path) -> None:
    [port] = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}/v1/traces"
    with traced(tmp_path, endpoint, rate=1) as server:
        server.infer(count=FEW)
        wait_for(lambda: any(f"spans are lost: {endpoint} does not take them" in line for line in server.log()))


def test_an_endpoint_that_is_no_address_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_model(workspace.repository, "first")
    options = ("--repository", workspace.repository, "--otlp-endpoint", "localhost:4318")
    done = workspace.run_here("deploy", "up", *options, *port_options(free_ports()))
    assert done.returncode == 1
    assert "error: localhost:4318 is no OTLP endpoint" in done.stderr
