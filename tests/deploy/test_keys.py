"""Another user of this machine gets neither the server's ports nor the admin key that is sent to them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as triton

from deploy.errors import AccessError, ModelError, SettingsError
from deploy.neighbours import held_ports, listener
from deploy.triton.control import Control
from deploy.triton.state import Process, Running
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy.attackers import needs_another_user, taker

KEY = "the-key-of-this-server"
EVERYWHERE = ["127.0.0.1", "0.0.0.0", "::"]  # what attackers listen on
SERVER_UID = 65_524


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """What is written down of a server that lives and does not listen yet."""
    monkeypatch.setenv("ADMIN_KEY", KEY)
    http, grpc, metrics = free_ports()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        me, it = Process.of(os.getpid()), Process.of(process.pid)
        yield Running(it, me, "starting", "127.0.0.1", http, grpc, metrics, "models", str(tmp_path), None, "", 1)
        process.kill()


@needs_another_user
@pytest.mark.parametrize("held_on", ["127.0.0.1", "0.0.0.0", "::1"])
def test_nobody_else_gets_a_port_that_is_held_before_or_after_the_server_has_it(held_on: str) -> None:
    [port] = free_ports(1)
    held = held_ports.hold(held_on, {"http_port": port}, SERVER_UID)
    hosts = ["::1", "::"] if ":" in held_on else EVERYWHERE
    with (
        taker(hosts, [port]) as stranger,
        taker(hosts, [port], uid=SERVER_UID + 1) as neighbour,
        taker(hosts, [port], uid=0) as root,
    ):
        assert not stranger.took(1, within_s=0.3) and not neighbour.took(1, within_s=0)
        with taker([held_on], [port], uid=SERVER_UID) as server:
            assert server.took(1) == [f"took {held_on} {port}"], "the server itself has to"
            assert not stranger.took(1, within_s=0.2) and not neighbour.took(1, within_s=0)
        assert not stranger.took(1, within_s=0.2), "it has crashed: the port is still held"
        assert not root.took(1, within_s=0), "not even root"
        held.release()
        takers = (stranger, neighbour, root)  # they never stopped trying
        wait_for(lambda: any(one.took(1, within_s=0) for one in takers), 5)


@needs_another_user
@pytest.mark.parametrize("host", EVERYWHERE)
def test_who_has_a_port_already_is_told_before_anything_starts(host: str) -> None:
    [port] = free_ports(1)
    with taker([host], [port]) as stranger:
        assert stranger.took(1)
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            held_ports.hold("127.0.0.1", {"http_port": port}, SERVER_UID)


def test_another_server_of_the_same_user_is_told_apart_from_this_one() -> None:
    [port] = free_ports(1)
    held = held_ports.hold("127.0.0.1", {"http_port": port}, os.geteuid())
    with pytest.raises(SettingsError, match="choose another port with --http-port"):
        held_ports.check_free("127.0.0.1", port, "http_port")
    held.release()
    held_ports.check_free("127.0.0.1", port, "http_port")


@needs_another_user
@pytest.mark.parametrize("host", EVERYWHERE)
def test_the_key_is_not_sent_to_who_listens_in_the_servers_place(recorded: Running, host: str) -> None:
    with taker([host], [recorded.http_port, recorded.grpc_port]) as stranger:
        assert len(stranger.took(2)) == 2
        with Control(recorded) as control:
            for call in (control.models, lambda: control.load("m"), lambda: control.unload("m")):
                with pytest.raises(AccessError, match=r"another process listens on .*: it is not given the admin key"):
                    call()
            assert control.live(), "without a key anybody may be asked"
        assert KEY.encode() not in stranger.got()


@needs_another_user
def test_on_another_address_nobody_is_in_the_way(recorded: Running) -> None:
    """Who listens on ::1, or on :: for IPv6 alone, gets nothing of 127.0.0.1, and keeps nobody from being asked."""
    with taker(["::1", "127.0.0.2"], [recorded.http_port]) as stranger, Control(recorded) as control:
        assert len(stranger.took(2)) == 2
        assert control.models() == []
        with pytest.raises(ModelError, match="is not unloaded"):
            control.unload("m")


def test_a_process_is_known_by_its_sockets_and_not_by_its_user() -> None:
    """Another process of the same user is not the server either."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listener.check(os.getpid(), "127.0.0.1", port)
        listener.check(os.getpid(), "localhost", port)
        listener.check(os.getpid(), "0.0.0.0", port)
        with pytest.raises(AccessError, match=f"belongs to uid {os.geteuid()}"):
            listener.check(os.getppid(), "127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        listener.check(os.getpid(), "127.0.0.1", port)
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        listener.check(os.getpid(), "127.0.0.1", server.getsockname()[1])
        listener.check(os.getpid(), "::1", server.getsockname()[1])


@needs_another_user
def test_who_shares_a_port_as_the_servers_own_user_gets_no_key() -> None:
    """As in a container that has the network of the host and the server's uid: the kernel lets it."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        listener.check(os.getpid(), "127.0.0.1", port)
        with taker(["127.0.0.1"], [port], uid=os.geteuid()) as other:
            assert other.took(1)
            with pytest.raises(AccessError, match="another process listens"):
                listener.check(os.getpid(), "127.0.0.1", port)


def test_a_server_that_is_being_killed_is_not_taken_for_a_stranger() -> None:
    """Its listening socket may outlive its descriptors; here another process has inherited it."""
    code = "import os, socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    inherits = (
        "import subprocess; p = subprocess.Popen(['sleep', '60'], pass_fds=[s.fileno()]); print(p.pid, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; {inherits}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port, heir = int(process.stdout.readline()), int(process.stdout.readline())
        listener.check(process.pid, "127.0.0.1", port)
        process.kill()
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, 5)
        with pytest.raises(ConnectionRefusedError, match="does not listen"):
            listener.check(process.pid, "127.0.0.1", port)
        os.kill(heir, 9)


@pytest.mark.heavy
@needs_another_user
def test_who_waits_for_a_crash_gets_no_port_and_no_key(sleeper: Workspace) -> None:
    ports = free_ports()
    options: tuple[str | Path, ...] = ("--repository", sleeper.repository, "--drain", "1", *port_options(ports))
    with taker(EVERYWHERE, ports[:2]) as stranger:
        assert len(stranger.took(2)) >= 2  # by SO_REUSEPORT, on every address
        refused = sleeper.run("deploy", "up", "--detach", *options)
        assert f"cannot listen on 127.0.0.1:{ports[0]}" in refused.stderr
    up = subprocess.Popen(sleeper.command("deploy", "up", *options), cwd=Path.cwd(), env=sleeper.environment)
    record = sleeper.root / "artifacts" / "server" / "server.json"
    wait_for(record.exists, 30)
    with taker(EVERYWHERE, ports[:2]) as stranger:

        def status() -> dict[str, object]:
            done = sleeper.run("deploy", "status", "--json")
            assert done.stdout, done.stderr
            return dict(json.loads(done.stdout))

        wait_for(lambda: status()["ready"], 60)
        psutil.Process(int(str(status()["pid"]))).kill()
        wait_for(lambda: status().get("server_restarts") == 1 and status()["ready"], 60)
        sleeper.must("deploy", "reload")
        with triton.InferenceServerClient(f"127.0.0.1:{ports[0]}") as client:
            given = triton.InferInput("IN", [1], "FP32")
            given.set_data_from_numpy(np.array([0.5], np.float32))
            for _ in range(50):
                given.set_data_from_numpy(np.array([0.0], np.float32))
                assert client.infer("sleeper", [given]).as_numpy("OUT") == [0.0]
        assert stranger.took(1, within_s=0.3) == []
        assert stranger.got() == b""
    sleeper.down()
    up.wait(timeout=60)
