"""Ports that are kept for whoever asked for them."""

import random
import socket
import subprocess
import sys

import pytest

from contracts import layout
from deploy.triton import ports

_ANOTHER = "import sys; from deploy.triton import ports; ports.random.sample = lambda *_: [int(sys.argv[1])]; "


def test_another_process_does_not_find_a_port_that_was_found_here() -> None:
    [found] = ports.free_ports(1)
    asked = [sys.executable, "-c", _ANOTHER + "ports.free_ports(1)", str(found)]
    done = subprocess.run(asked, cwd=layout.ROOT, capture_output=True, text=True, check=False)
    assert "no port is free" in done.stderr


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_whoever_asked_can_listen_on_them(option: int) -> None:
    found = ports.free_ports(4)
    assert len(set(found)) == 4
    for port in found:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, option, 1)  # one of the two, as servers do
            server.bind(("127.0.0.1", port))
            server.listen()
            with socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()


def test_a_port_that_somebody_listens_on_or_holds_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as holding:
        holding.bind(("127.0.0.1", 0))
        taken = [listening.getsockname()[1], holding.getsockname()[1]]
        monkeypatch.setattr(random, "sample", lambda *_: taken)
        with pytest.raises(OSError, match="no port is free"):
            ports.free_ports(1)
