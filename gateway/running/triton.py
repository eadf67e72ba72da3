"""A Triton beside the gateway: `python -m deploy up`, as a command, kept running for as long as the gateway runs."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contracts.running import record
from contracts.running.record import Record
from gateway.errors import StartError
from gateway.running.kept import Kept

_STOP_S, _LOOK_S = 60.0, 0.2


@contextmanager
def beside(options: Sequence[str]) -> Iterator[str]:
    """Start it and wait until its models are ready; yield its address, a socket in a folder that nobody else may enter.

    Whoever ends it, it is started again on the same socket; whoever ends this process, it ends, too.

    Args:
        options: More of `python -m deploy up`.

    Raises:
        StartError: it did not start; what it said stands above.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-triton-") as folder:
        command = [sys.executable, "-m", "deploy", "up", "--http-socket", f"{folder}/http", *options]
        kept = Kept(command, os.environ)
        kept.begin()
        try:
            address = _ready(kept).http
            kept.keep()
            yield address
        finally:
            kept.stop(_STOP_S)


def _ready(kept: Kept) -> Record:
    while (pid := kept.pid) is not None:
        found = record.recorded()
        if found is not None and found.supervisor.pid == pid and found.phase == "ready":
            return found
        time.sleep(_LOOK_S)
    raise StartError("Triton did not start", note="it says above why not")
