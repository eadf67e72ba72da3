"""What the processes of a server use: a process and all below it."""

import time
from collections.abc import Iterator
from contextlib import suppress

import psutil


def cpu_s(pid: int) -> float:
    """Return the CPU time in seconds that a process and those below it have had since they began, to the nanosecond.

    The kernel's tick, which `psutil` reads, is 10 ms: too coarse for half a second of load on eight processes.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    found = 0.0
    for process in _all(pid):
        with suppress(OSError):  # it has just ended
            found += time.clock_gettime(_clock(process.pid))
    return found


def memory_mb(pid: int) -> float:
    """Return the memory that they take; of pages that several share, each counts its part (PSS).

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    found = 0
    for process in _all(pid):
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found / 1e6


def _all(pid: int) -> Iterator[psutil.Process]:
    top = psutil.Process(pid)
    yield top
    yield from top.children(recursive=True)


def _clock(pid: int) -> int:
    """Name the CPU clock of another process, as clock_getcpuclockid(3) does on Linux."""
    return (~pid << 3) | 2
