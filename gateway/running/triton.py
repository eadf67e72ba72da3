"""A Triton beside the gateway: `python -m deploy up`, as a command, for as long as the gateway runs."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from contracts import layout
from contracts.running import record
from gateway.errors import StartError

_STOP_S = 60.0


@contextmanager
def beside() -> Iterator[str]:
    """Start it and wait until its models are ready; yield its address.

    It listens on a Unix socket in a folder of its own, where nobody else can reach it.

    Raises:
        StartError: it did not start; what it said is above.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-triton-") as folder:
        path = f"{folder}/http"
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy", "up", "--http-socket", path], cwd=layout.ROOT, start_new_session=True
        )
        try:
            _wait(process, path)
            yield f"unix:{path}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
