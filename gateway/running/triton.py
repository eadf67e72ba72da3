"""A Triton beside the gateway: `python -m deploy up`, as a command, for as long as the gateway runs."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contracts import layout
from contracts.running import record
from contracts.running.record import Record
from gateway.errors import StartError

_STOP_S, _LOOK_S = 60.0, 0.2


@contextmanager
def beside(options: Sequence[str]) -> Iterator[str]:
    """Start it and wait until its models are ready; yield its address, a socket in a folder that nobody else may enter.

    Args:
        options: More of `python -m deploy up`.

    Raises:
        StartError: it did not start; what it said stands above.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-triton-") as folder:
        command = [sys.executable, "-m", "deploy", "up", "--http-socket", f"{folder}/http", *options]
        process = subprocess.Popen(command, cwd=layout.ROOT, start_new_session=True)
        try:
            yield _ready(process).http
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(process: "subprocess.Popen[bytes]") -> Record:
    while process.poll() is None:
        found = record.recorded()
        if found is not None and found.supervisor.pid == process.pid and found.phase == "ready":
            return found
        time.sleep(_LOOK_S)
    raise StartError("Triton did not start", note="it says above why not", hint="python -m deploy logs")
