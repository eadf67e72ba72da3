"""An image's health check asks the server that runs there, at the address that it was given, and through no proxy."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.triton import health, state
from deploy.triton.state import Process, Running


class _Server(HTTPServer):
    code = 200


class _Ready(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.send_response(self.server.code if self.path == "/v2/health/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """A server that says it is ready, written down as one that listens everywhere."""
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    server = _Server(("127.0.0.1", 0), _Ready)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    ports = (server.server_port, 1, 2)
    state.record(Running(Process(1, 0), Process(1, 0), "ready", "0.0.0.0", *ports, "models", "served", None, "", 1))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_is_ready_is_healthy_whatever_proxy_there_is(
    answering: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy")
    assert health.main() == 0


def test_one_that_is_not_ready_is_not_and_why_is_said(answering: _Server, capsys: pytest.CaptureFixture[str]) -> None:
    answering.code = 400
    assert health.main() == 1
    url = f"http://127.0.0.1:{answering.server_port}/v2/health/ready"
    assert capsys.readouterr().out == f"{url}: HTTP Error 400: Bad Request (ready)\n"


def test_where_no_server_was_started_nothing_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    assert health.main() == 1


def test_a_server_that_does_not_listen_yet_is_not_healthy(answering: _Server) -> None:
    answering.shutdown()
    answering.server_close()
    assert health.main() == 1
