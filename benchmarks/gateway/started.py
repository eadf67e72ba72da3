"""The gateway as its command starts it, with a store, a key and settings of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.errors import MeasurementError
from contracts import layout
from deploy.triton.ports import free_ports

# Limits of a key. Each holds, and none is met: what they cost is in the figures.
NEVER_MET = ("requests_short=1000000/second", "requests_long=1000000000/hour", "inferences_day=1000000000")
_START_S = 30.0
_STOP_S = 60.0


@dataclass(frozen=True)
class Gateway:
    """One that runs.

    Attributes:
        port: Of 127.0.0.1.
        key: Of a caller who may ask every model.
        process: The one that answers; the writer of the record is its child.
        spool: Where records wait for the writer.
    """

    port: int
    key: str
    process: psutil.Process
    spool: Path
    log: Path

    @property
    def address(self) -> str:
        """As host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def authorization(self) -> str:
        """The value of that header."""
        return f"Bearer {self.key}"

    def writer(self) -> psutil.Process | None:
        """Return the process that writes the record down; None while there is none."""
        for child in self.process.children():
            if "store" in child.cmdline():
                return child
        return None


@contextmanager
def gateway(folder: Path, tritons: Sequence[str], limits: Sequence[str] = (), **settings: str) -> Iterator[Gateway]:
    """Run `python -m gateway up` in front of these servers while the block does.

    Args:
        folder: For its artifacts and its log.
        tritons: As host:port.
        limits: Of the key, as `gateway keys create --limit` takes them.
        settings: More of them, as the environment has them: seen__access_log="false".

    Raises:
        MeasurementError: it makes no key, or does not start.
    """
    [port] = free_ports(1)
    given = {"triton__endpoints": ",".join(f"http://{each}" for each in tritons), "listen__port": str(port), **settings}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "STORE_"))},
        "ARTIFACTS_DIR": str(folder / "artifacts"),
        **{f"GATEWAY_{name.upper()}": value for name, value in given.items()},
    }
    key, log = _key(environment, limits), folder / "gateway.log"
    with log.open("wb") as written:
        command = [sys.executable, "-m", "gateway", "up"]
        # In a session of its own: Ctrl-C ends the measurement, and that the gateway.
        running = subprocess.Popen(
            command, cwd=layout.ROOT, env=environment, stdout=written, stderr=written, start_new_session=True
        )
    try:
        wait_for(port, running, log)
        yield Gateway(port, key, psutil.Process(running.pid), folder / "artifacts" / "store" / "spool", log)
    finally:
        running.terminate()
        running.wait(_STOP_S)


def wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until somebody listens on a port.

    Raises:
        MeasurementError: the process has ended, or took too long.
    """
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise MeasurementError(f"{process.args!r} does not start", note=log.read_text()[-2000:])
        time.sleep(0.05)


def _key(environment: dict[str, str], limits: Sequence[str]) -> str:
    command = [sys.executable, "-m", "gateway", "keys", "create", "benchmark", "--json"]
    made = subprocess.run(
        [*command, *(word for limit in limits for word in ("--limit", limit))],
        cwd=layout.ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise MeasurementError("the gateway makes no key", note=made.stderr.strip())
    return str(json.loads(made.stdout)["key"])
