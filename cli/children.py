"""Processes that this one starts: they end with it, and no signal leaves one of them half started."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SET_PDEATHSIG = 1  # <sys/prctl.h>
_LIBC = ctypes.CDLL(None)  # loaded here: a child between fork and exec shall not
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when the one that started it ends, however it does (prctl(2)).

    It may have ended before: whoever calls this looks at `os.getppid` afterwards.
    """
    _LIBC.prctl(_SET_PDEATHSIG, int(number), 0, 0, 0)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore what asks this process to stop while the block runs; only the main thread gets signals at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in _STOPS]
    try:
        yield
    finally:
        for number, handler in zip(_STOPS, before, strict=True):
            signal.signal(number, handler)
