"""The server that `deploy up` wrote down is found by whoever is to speak to it, without `deploy`."""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import target
from benchmarks.errors import MeasurementError
from benchmarks.serving import perf
from clients.command_line import commands
from clients.errors import InvalidInputError
from clients.settings import DEFAULT_HTTP_SERVER, DEFAULT_SERVER
from contracts.running import record
from contracts.running.record import Process
from deploy.triton import state
from deploy.triton.state import Running


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))


@pytest.fixture
def server() -> Running:
    """A server that runs: this very process, which listens everywhere."""
    me = Process.of(os.getpid())
    up = Running(me, me, "ready", "0.0.0.0", 9000, 9001, 9002, "models", "served", None, "", 1)
    state.record(up)
    return up


def asked(*, http: bool = False, server: list[str] | None = None) -> list[str]:
    """What `python -m clients` asks, given these options."""
    return commands._servers(argparse.Namespace(http=http, server=server))


def test_clients_and_load_tools_ask_the_server_that_runs(server: Running) -> None:
    assert asked() == ["grpc://127.0.0.1:9001"]
    assert asked(http=True) == ["http://127.0.0.1:9000"] == [target.http_url()]
    assert asked(server=["grpc://other:1"]) == ["grpc://other:1"]
    state.record(replace(server, host="::1", grpc_tls=True))
    assert asked() == ["grpcs://[::1]:9001"]


def test_without_one_they_ask_the_usual_address(server: Running) -> None:
    gone = Process(server.triton.pid, server.triton.started + 1)  # another process has its number by now
    state.record(replace(server, triton=gone))
    assert record.running() is not None, "its supervisor starts it again"
    state.record(replace(server, triton=gone, supervisor=gone))
    assert record.running() is None
    assert asked() == [DEFAULT_SERVER]
    assert asked(http=True) == [DEFAULT_HTTP_SERVER] == [target.http_url()]
    with pytest.raises(InvalidInputError, match="give one of the two"):
        asked(http=True, server=["host"])


@pytest.mark.parametrize("written", ["", "{}", "[]", "null", '{"triton": 1}', "\udcff"])
def test_what_cannot_be_read_is_no_record(server: Running, written: str) -> None:
    record.file().write_bytes(written.encode(errors="surrogateescape"))
    assert record.recorded() is None and state.recorded() is None


def test_a_record_that_others_may_have_written_is_not_believed(server: Running) -> None:
    """It says to whom requests are sent."""
    for place in (record.file(), record.directory()):
        mode = place.stat().st_mode
        place.chmod(mode | 0o020)
        assert record.recorded() is None and asked() == [DEFAULT_SERVER]
        place.chmod(mode)
    assert record.recorded() is not None


def test_a_record_may_have_what_its_reader_does_not_know(server: Running) -> None:
    raw = json.loads(record.file().read_text())
    record.file().write_text(json.dumps(raw | {"of_a_later_version": 1}))
    assert (found := record.recorded()) is not None and found.http_port == 9000


def test_perf_analyzer_is_given_what_is_named_or_what_runs(server: Running) -> None:
    both = {"protocol": ["grpc", "http"], "server": list[str]()}
    assert perf._addresses(argparse.Namespace(**both)) == {"grpc": server.grpc, "http": server.http}
    named = both | {"server": ["grpc://other:7", "http://other:8"]}
    assert perf._addresses(argparse.Namespace(**named)) == {"grpc": "other:7", "http": "other:8"}
    with pytest.raises(MeasurementError, match="--server http://HOST:PORT"):
        perf._addresses(argparse.Namespace(**both | {"server": ["grpc://other:7"]}))
