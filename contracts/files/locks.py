"""A lock that is a file: the kernel gives it back, also when its process is killed."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where others may write, a link could lead anywhere, and a FIFO would be waited for.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock for as long as the block runs; wait for whoever has it. What is in the file stays as it is.

    Raises:
        BlockingIOError: somebody has it, and nobody is to `wait`.
        OSError: it is a link or no plain file, or cannot be made or opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _SAFELY, 0o660)  # nobody else may hold it for ever
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no plain file: it is no lock of ours")
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
