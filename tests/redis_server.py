"""A real Redis for tests: the machine's, or Debian's, unpacked once."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from contracts import layout
from tests.conftest import free_ports
from tests.packages import started_by, unpack

_UNPACKED = layout.artifacts() / "tools" / "redis"


@dataclass
class RedisServer:
    """A server on a port of its own."""

    port: int
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It hangs meanwhile: connections are made, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def serving(folder: Path) -> Iterator[RedisServer]:
    """Start one that keeps nothing on disk."""
    [port] = free_ports(1)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen([_executable(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        deadline = time.monotonic() + 20
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline and process.poll() is None, "Redis did not start"
                time.sleep(0.02)
        yield RedisServer(port, process)
    finally:
        process.kill()
        process.wait()


def _executable() -> str:
    if found := shutil.which("redis-server"):
        return found
    if not _UNPACKED.exists():
        try:
            unpack(("redis-server", "redis-tools"), _UNPACKED)
        except OSError as error:
            pytest.fail(f"this needs Redis: sudo apt-get update && sudo apt-get install redis-server\n{error}")
    return str(started_by(_UNPACKED, "redis-server"))
