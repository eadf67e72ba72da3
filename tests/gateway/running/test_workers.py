"""Several workers, and a signal at the worst moment."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.running import workers
from gateway.running.kept import Kept
from gateway.settings import sources


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("already_runs", [False, True])
def test_a_signal_while_workers_are_started_ends_all_of_them(
    already_runs: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun: list[Kept] = []

    class Signalled(Kept):
        def begin(self) -> None:
            begun.append(self)
            if len(begun) == 2 and not already_runs:
                os.kill(os.getpid(), signal.SIGTERM)
            super().begin()
            if len(begun) == 2 and already_runs:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(workers, "Kept", Signalled)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_LISTEN__WORKERS", "3")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        began = time.monotonic()
        assert workers._several(sources.read().settings, listener) == 0
    assert time.monotonic() - began < 10  # else they were killed, who had not been told
    assert len(begun) == 2  # the third was not started any more
    assert all(worker._process is not None and worker._process.poll() == -signal.SIGTERM for worker in begun)
