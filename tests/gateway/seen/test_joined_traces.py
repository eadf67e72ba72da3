"""A request's trace begins at its caller, goes on in the gateway and ends in a real Triton."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.seen.traces import Traces
from tests.conftest import wait_for
from tests.deploy.echoes import LENGTH, PIXELS
from tests.gateway import tritons
from tests.gateway.served import KEY, Gateway, gateway

COUNT = 1_000


@dataclass
class Collector:
    """An OTLP receiver.

    Attributes:
        spans: By trace: whose it is, its id (Triton's: its parent's), and itself.
    """

    port: int
    spans: dict[str, list[tuple[str, str, Any]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def take(self, body: bytes, *, is_json: bool) -> None:
        if is_json:  # Triton's; ids in hexadecimal, which protobuf's reader of JSON takes for base64
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        self.spans[span["traceId"]].append(("triton", span.get("parentSpanId", ""), span))
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[span.trace_id.hex()].append(("gateway", span.span_id.hex(), span))

    def joined(self, trace: str) -> bool:
        """Whether the gateway's span has a child of Triton's."""
        ours = {span_id for whose, span_id, _ in self.spans[trace] if whose == "gateway"}
        return any(parent in ours for whose, parent, _ in self.spans[trace] if whose == "triton")


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.take(body, is_json="json" in self.headers["Content-Type"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Traced:
    door: Gateway
    collector: Collector
    traces: Traces


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A gateway and a Triton that send their spans to one place; of those that nobody asks for, none is made."""
    folder: Path = tmp_path_factory.mktemp("traced")
    with collector() as receiver:
        options = (
            "--trace-config=mode=opentelemetry",
            f"--trace-config=opentelemetry,url={receiver.endpoint}",
            "--trace-config=opentelemetry,resource=service.name=triton",
            "--trace-config=level=TIMESTAMPS",
            "--trace-config=rate=1000000",
        )
        traces = Traces(receiver.endpoint, ratio=0.0)
        models = tritons.repository(folder / "models")
        with tritons.triton(models, options=options) as running, gateway(running.address, traces=traces) as door:
            yield Traced(door, receiver, traces)


def send(traced: Traced, count: int, flags: str, first: int) -> list[str]:
    """Requests of a caller that traces them, or not; the traces' ids."""
    header, connection, ids = PIXELS.header(), traced.door.connect(), []
    for number in range(count):
        ids.append(f"{first + number:032x}")
        parent = f"00-{ids[-1]}-{first + number:016x}-{flags}"
        sent = {LENGTH: str(len(header)), **KEY, "traceparent": parent}
        connection.request("POST", PIXELS.path, header + PIXELS.content, sent)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    return ids


@pytest.mark.heavy
def test_every_trace_goes_on_in_triton(traced: Traced) -> None:
    ids = send(traced, COUNT, "01", 1)
    traced.traces.flush()
    wait_for(lambda: all(traced.collector.joined(trace) for trace in ids), 30)
    [span] = [span for whose, _, span in traced.collector.spans[ids[0]] if whose == "gateway"]
    said = {each.key: each.value for each in span.attributes}
    assert span.parent_span_id.hex() == f"{1:016x}" and span.name == "infer pixels"
    assert said["gateway.model"].string_value == "pixels" and said["gateway.release"].string_value == "1"
    assert said["gateway.arm"].string_value == "stable" and said["gateway.key"].string_value == "all"
    assert len(said["gateway.request_id"].string_value) == 32
    assert not any(value.string_value.startswith(("Bearer", "gk_")) for value in said.values())


@pytest.mark.heavy
def test_a_caller_that_does_not_trace_is_not_traced(traced: Traced) -> None:
    ids = send(traced, 20, "00", 10_000_000)
    traced.traces.flush()
    assert not any(whose == "gateway" for trace in ids for whose, _, _ in traced.collector.spans[trace])
