"""The gateway's end has a bound, whatever hangs, and everybody who waits then is told."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contracts import layout
from gateway.running.draining import CLOSE_S
from gateway.seen.traces import Traces
from store.spool import Spool
from tests.conftest import wait_for
from tests.gateway import whole
from tests.gateway.whole import Answer, Whole
from tests.redis_server import RedisServer
from tests.store.records import asked, written

pytestmark = pytest.mark.heavy

NOTICE_S, WRITER_S = 2.0, 5.0
LENGTH = "Inference-Header-Content-Length"
INPUT = {"name": "IN", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
HEADER = json.dumps({"inputs": [INPUT]}).encode()
_TENSORS = {"input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [1]}], "output": []}
_SAID = {
    "/v2/health/live": {},
    "/v2/models/endless": {"name": "endless", "versions": ["1"]},
    "/v2/models/endless/config": {"name": "endless", "max_batch_size": 0, **_TENSORS},
}


class Endless(BaseHTTPRequestHandler):
    """In the place of a Triton whose only model computes for ever."""

    protocol_version = "HTTP/1.1"
    begun = 0
    begins = False  # an answer, of which no more comes

    def do_GET(self) -> None:
        content = json.dumps(_SAID[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        Endless.begun += 1
        if Endless.begins:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
        self.rfile.read()  # nobody sends more: until the connection ends

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def endless() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def asking(running: Whole, count: int = 3) -> Iterator[list[Answer]]:
    """Requests that get no answer of a model; what they get, once the gateway has ended."""
    before, answers = Endless.begun, list[Answer]()
    headers = {"inference-header-content-length": str(len(HEADER))}

    def ask() -> None:
        answers.append(running.ask("POST", "/v2/models/endless/infer", HEADER + b"\0\0\0\0", headers, key=""))

    with ThreadPoolExecutor(count) as pool:
        for _ in range(count):
            pool.submit(ask)
        wait_for(lambda: Endless.begun == before + count, 20)
        yield answers


def ended(running: Whole, *signals: signal.Signals) -> float:
    """Send these, half a second apart; how long the end took."""
    began = time.monotonic()
    for number in signals:
        running.process.send_signal(number)
        time.sleep(0.5)
    running.process.wait(120)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("drain_s", "signals"),
    [
        pytest.param("1", [signal.SIGTERM], id="the time is over"),
        pytest.param("60", [signal.SIGTERM, signal.SIGTERM], id="told twice"),
        pytest.param("60", [signal.SIGINT, signal.SIGINT], id="Ctrl-C twice", marks=pytest.mark.slow),
    ],
)
def test_who_still_waits_is_told_and_it_is_recorded_so(
    endless: str, tmp_path: Path, drain_s: str, signals: list[signal.Signals]
) -> None:
    more = {"keys__required": "false", "limits__drain_s": drain_s}
    with whole.up(tmp_path / "g", endless, options=("--without-writer",), **more) as running:
        with asking(running) as answers:
            assert ended(running, *signals) < 30
        said = (tmp_path / "g" / "gateway.log").read_text()
    assert [(answer.status, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 3
    assert all("its time to end" in answer.json["error"] for answer in answers)
    assert "Traceback" not in said and "exception" not in said.lower(), said
    store = f"sqlite:///{tmp_path}/g/artifacts/store/store.db"
    written(store, tmp_path / "g" / "artifacts" / "store" / "spool")
    assert asked(store, "SELECT status FROM predictions") == [(503,)] * 3


def test_an_answer_that_has_begun_and_does_not_end_is_broken_off(
    endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endless, "begins", True)
    more = {"keys__required": "false", "limits__drain_s": "1"}
    with whole.up(tmp_path / "g", endless, options=("--without-writer",), **more) as running:
        with socket.create_connection(("127.0.0.1", running.port), 20) as caller:
            head = f"POST /v2/models/endless/infer HTTP/1.1\r\nHost: x\r\n{LENGTH}: {len(HEADER)}\r\n"
            caller.sendall(f"{head}Content-Length: {len(HEADER) + 4}\r\n\r\n".encode() + HEADER + b"\0\0\0\0")
            assert caller.recv(1000).startswith(b"HTTP/1.1 200")
            assert ended(running, signal.SIGTERM) < 20
        said = (tmp_path / "g" / "gateway.log").read_text()
    assert "Traceback" not in said, said


@pytest.mark.slow
def test_connections_without_a_request_do_not_hold_the_end_up(endless: str, tmp_path: Path) -> None:
    """One that is kept, one on which nothing came, one with half a request's headers."""
    more = {"keys__required": "false", "limits__drain_s": "60"}
    with whole.up(tmp_path / "g", endless, options=("--without-writer",), **more) as running:
        kept, _, half = [socket.create_connection(("127.0.0.1", running.port), 20) for _ in range(3)]
        kept.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(1000).startswith(b"HTTP/1.1 200")
        half.sendall(b"GET /livez HTTP/1.1\r\nHo")
        assert ended(running, signal.SIGTERM) < 20


def test_a_collector_that_hangs_does_not_hold_the_end_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        traces = Traces(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces", 1.0)
        traces._tracer.start_span("one").end()
        began = time.monotonic()
        traces.close()
        assert time.monotonic() - began < 6


def test_a_thread_that_hangs_is_said_and_left() -> None:
    """As one that asks for a name which no server answers."""
    code = """
import threading, time
from gateway.running.draining import Overdue

def hangs_for_ever():
    time.sleep(600)

threading.Thread(target=hangs_for_ever).start()
with Overdue() as overdue:
    overdue.begin(0.3)
    threading.Event().wait()
"""
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=layout.ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 1
    assert "takes longer than 0.3 s" in found.stderr and "hangs_for_ever" in found.stderr


@pytest.mark.slow
def test_a_second_signal_reaches_every_worker(endless: str, tmp_path: Path, redis_server: RedisServer) -> None:
    more = {"keys__required": "false", "limits__drain_s": "60", "listen__workers": "2"}
    more["quota__storage"] = redis_server.url
    with whole.up(tmp_path / "g", endless, options=(), **more) as running, asking(running, 6) as answers:
        assert ended(running, signal.SIGTERM, signal.SIGTERM) < 30
    assert [answer.status for answer in answers] == [503] * 6


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_end_has_its_bound_on_a_busy_machine_with_much_to_write(endless: str, tmp_path: Path) -> None:
    """Both cores have other work, and a hundred thousand records wait: they wait on, for the next start."""
    drain_s = 3.0
    more = {"keys__required": "false", "limits__drain_s": str(drain_s)}
    spool = Spool(tmp_path / "g" / "artifacts" / "store" / "spool")
    record = {"kind": "prediction", "door": "raw", "model": "m", "release": "1", "arm": "stable", "rows": 1}
    spins = [sys.executable, "-c", "while True: pass"]
    with whole.up(tmp_path / "g", endless, options=(), **more) as running:
        for _ in range(100_000):
            spool.put({**record, "id": secrets.token_hex(16), "time": time.time_ns(), "status": 200, "latency_ms": 1.0})
        spool.close()
        busy = [subprocess.Popen(spins) for _ in range(9 * (os.cpu_count() or 2))]
        try:
            with asking(running) as answers:
                took_s = ended(running, signal.SIGTERM)
        finally:
            for each in busy:
                each.kill()
                each.wait()
    assert [answer.status for answer in answers] == [503] * 3
    # What it promises, and as much again for a machine that has other things to do.
    assert took_s < 2 * (NOTICE_S + drain_s + 1 + CLOSE_S + WRITER_S)
    store = f"sqlite:///{tmp_path}/g/artifacts/store/store.db"
    written(store, tmp_path / "g" / "artifacts" / "store" / "spool")
    assert asked(store, "SELECT count(*), count(DISTINCT id) FROM predictions") == [(100_003, 100_003)]
