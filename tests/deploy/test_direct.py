"""Nobody who asks this machine's server asks a proxy: it would see the requests, the answers and the admin key."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calling.callers import Question
from benchmarks.calling.tritonclient_callers import tritonclient_caller
from benchmarks.errors import MeasurementError
from benchmarks.gpu_day import serving
from benchmarks.serving import perf_analyzer
from clients import AsyncClient, Client, ClientError
from clients.settings import Address
from deploy.drill.traffic import tritonclient_connection
from tests.conftest import Workspace, free_ports, port_options
from tests.refusing_proxy import RefusingProxy, refusing_proxy

INPUTS = {"IN": np.zeros(1, np.float32)}
VARIABLES = [what for name in ("http", "https", "grpc", "all") for what in (f"{name}_proxy", f"{name}_proxy".upper())]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    """One that every variable of the environment names, for every host."""
    with refusing_proxy() as found:
        for name in VARIABLES:
            monkeypatch.setenv(name, f"http://{found.address}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield found


@pytest.mark.heavy
def test_no_command_sends_a_byte_to_a_proxy(sleeper: Workspace, proxy: RefusingProxy) -> None:
    options = ("--repository", sleeper.repository, "--drain", "1", *port_options(free_ports()))
    sleeper.must("deploy", "up", "--detach", *options)
    status = json.loads(sleeper.must("deploy", "status", "--json"))
    assert status["ready"] and status["models"][0]["requests"] == 0
    sleeper.must("deploy", "reload")
    assert sleeper.run_apart("deploy.triton.health").stdout.endswith("ready\n")
    sleeper.must("clients", "infer", "sleeper", "--server", f"grpc://{status['grpc']}", "--input", "IN=[0]")
    question = Question("sleeper", INPUTS, ("OUT",))
    for protocol in ("http", "grpc"):
        address = status[protocol]
        with Client(f"{protocol}://{address}") as client:
            assert client.infer("sleeper", INPUTS)["OUT"] == [0]
        asyncio.run(ask(f"{protocol}://{address}"))
        with tritonclient_connection(protocol, address) as send:
            assert send("sleeper", INPUTS)["OUT"] == [0]
        for kind in ("threads", "asyncio"):
            with tritonclient_caller(protocol, address, kind, question, same_request=True) as caller:
                assert caller.answer()["OUT"] == [0]
    assert b"nv_inference" in serving._get(status["metrics"])
    sleeper.down()
    assert proxy.seen == []


async def ask(url: str) -> None:
    async with AsyncClient(url) as client:
        assert (await client.infer("sleeper", INPUTS))["OUT"] == [0]


def test_a_tool_that_heeds_proxies_is_given_none(tmp_path: Path, proxy: RefusingProxy) -> None:
    """perf_analyzer's gRPC and libcurl do."""
    tool, seen = tmp_path / "perf_analyzer", tmp_path / "seen"
    tool.write_text(
        f"#!{sys.executable}\nimport json, os\nopen({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))\n"
    )
    tool.chmod(0o755)
    with pytest.raises(MeasurementError):
        perf_analyzer.measure(perf_analyzer.PerfAnalyzer(tool), "m", "grpc", "127.0.0.1:1", 1, tmp_path, 1000)
    given = json.loads(seen.read_text())
    assert given["PATH"] == os.environ["PATH"]
    assert not {name for name in given if name.lower().endswith("_proxy")}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_elsewhere_is_asked_through_it_unless_no_proxy_names_it(
    protocol: str, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what was not seen above would prove nothing."""
    elsewhere = f"{protocol}://192.0.2.1:8000"  # for documentation: nobody has it
    monkeypatch.setenv("no_proxy", "192.0.2.1")
    with Client(elsewhere, timeout_s=0.3) as client, pytest.raises(ClientError):
        client.infer("sleeper", INPUTS)
    assert proxy.seen == []
    monkeypatch.setenv("no_proxy", "")
    with Client(elsewhere, timeout_s=5) as client, pytest.raises(ClientError):
        client.infer("sleeper", INPUTS)
    assert b"192.0.2.1:8000" in proxy.seen[0]


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]")),
        *((host, True) for host in ("0.0.0.0", "[::]", "[::ffff:127.0.0.1]")),
        *((host, False) for host in ("localhost.example.com", "10.0.0.1", "128.0.0.1", "[fe80::1]", "notlocalhost")),
    ],
)
def test_which_addresses_are_this_machines(host: str, local: bool) -> None:
    assert Address.of(f"http://{host}:8000").is_local is local
