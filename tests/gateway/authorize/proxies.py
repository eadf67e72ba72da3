"""The real proxies, with the shipped configurations but for their ports."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.installing import tool_environments
from contracts import layout
from tests.conftest import free_ports, wait_for
from tests.deploy import nginx as of_tests
from tests.gateway.tritons import Running


@contextmanager
def nginx(folder: Path, gateway_port: int, triton: Running) -> Iterator[int]:
    """Start nginx; the port that it listens on."""
    [port, *_] = free_ports()
    _configured(
        folder / "gateway.conf",
        layout.ROOT / "deploy" / "nginx" / "gateway.conf",
        {
            "listen 8081": f"listen 127.0.0.1:{port}",
            "127.0.0.1:8080": f"127.0.0.1:{gateway_port}",
            "127.0.0.1:8000": str(triton.address),
        },
    )
    # Root's nginx works as nobody, who cannot reach pytest's folders.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    command = [of_tests.executable(), "-e", "stderr", "-p", folder, "-c", folder / "gateway.conf", *user]
    with _running(command, folder / "error.log", port):
        yield port


@contextmanager
def envoy(folder: Path, gateway_port: int, triton: Running) -> Iterator[int]:
    """Start Envoy; the port that it listens on."""
    port, admin, *_ = free_ports()
    grpc = dict(word[2:].split("=", 1) for word in triton.process.cmdline() if "=" in word)["grpc-port"]
    _configured(
        folder / "gateway.yaml",
        layout.ROOT / "deploy" / "envoy" / "gateway.yaml",
        {
            "port_value: 8082": f"port_value: {port}",
            "port_value: 9901": f"port_value: {admin}",
            "port_value: 8080": f"port_value: {gateway_port}",
            "port_value: 8000": f"port_value: {triton.address.port}",
            "port_value: 8001": f"port_value: {grpc}",
        },
    )
    program = tool_environments.programs("envoy") / "envoy"
    command = [program, "--config-path", folder / "gateway.yaml", "--use-dynamic-base-id", "--log-level", "warn"]
    with _running(command, folder / "error.log", port):
        yield port


def _configured(target: Path, shipped: Path, changes: dict[str, str]) -> None:
    text = shipped.read_text()
    for old, new in changes.items():
        assert old in text, f"{shipped} has no {old!r} to change"
        text = text.replace(old, new)
    target.write_text(text)


@contextmanager
def _running(command: list[str | Path], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as error:
        process = subprocess.Popen(command, stderr=error, stdout=error)
    try:
        wait_for(lambda: process.poll() is not None or _listens(port), 20)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
