"""Processes of another user of this machine, who wants what is not theirs."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.attackers import PLAYS

STRANGER = 65_534  # whoever it is: not root, and not whom the server runs as
_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")  # one that others may read

needs_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or _PYTHON is None, reason=f"{PLAYS}: needs root and a python3 for all"
)

# Tries to get a port in every way there is, until it is told to stop; takes down what is sent to it, and answers as
# a Triton without models would.
_TAKER = """
import itertools, select, socket, sys
hosts, ports = sys.argv[1].split(","), [int(port) for port in sys.argv[2].split(",")]
OPTIONS = ((), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT))
ways, taken = list(itertools.product(hosts, ports, OPTIONS)), {}
print("ready", flush=True)
while True:
    for host, port, options in ways:
        if (host, port) in taken.values():
            continue
        one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        for option in options:
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            one.bind((host, port))
            one.listen()
            taken[one] = (host, port)
            print("took", host, port, flush=True)
        except OSError:
            one.close()
    watched = [sys.stdin, *taken]
    for readable in select.select(watched, [], [], 0.002)[0]:
        if readable is sys.stdin:
            sys.exit()
        connection, _ = readable.accept()
        connection.settimeout(0.5)
        try:
            print("got", connection.recv(65536).hex(), flush=True)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
        except OSError:
            pass
        connection.close()
"""


@dataclass(frozen=True)
class Taker:
    """A process that tries to take ports, and what it has got so far."""

    process: "subprocess.Popen[str]"
    lines: list[str]

    def took(self, count: int, within_s: float = 5) -> list[str]:
        """The ports that it has, as "took HOST PORT": once there are so many, or the time is over."""
        until = time.monotonic() + within_s
        while len(found := [line for line in self.lines if line.startswith("took")]) < count:
            if time.monotonic() > until:
                break
            time.sleep(0.01)
        return found

    def got(self) -> bytes:
        """What was sent to it: complete, as it waits half a second for more."""
        time.sleep(0.6)
        return b"".join(bytes.fromhex(line[len("got ") :]) for line in self.lines if line.startswith("got "))


@contextmanager
def taker(hosts: list[str], ports: list[int], uid: int = STRANGER) -> Iterator[Taker]:
    """Another user's process that takes what it can of these, for as long as the block runs."""
    assert _PYTHON
    command = [_PYTHON, "-u", "-c", _TAKER, ",".join(hosts), ",".join(map(str, ports))]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, user=uid, group=uid, extra_groups=[], cwd="/", stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = Taker(process, [])
        hearing = threading.Thread(target=_hear, args=(process.stdout, found.lines), daemon=True)
        hearing.start()
        try:
            yield found
        finally:
            process.kill()
            hearing.join()


def _hear(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.strip())


def reads(path: Path) -> bool:
    """Whether another user can read a file."""
    return runs(f"open({str(path)!r}, 'rb').read(1)")


def runs(code: str) -> bool:
    """Whether another user may do this, in Python."""
    done = subprocess.run(
        [_PYTHON or "", "-c", code],
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        cwd="/",
        umask=0,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 or b"PermissionError" in done.stderr, done.stderr
    return done.returncode == 0
