"""Whether a process that still runs has crashed: Linux tells, and nothing that anybody prints does.

Triton's handler of a crash prints where it was, and that may hang for ever, while other threads go on to call the
server alive. As long as a thread is in a handler, the kernel blocks that handler's signal for it.
"""

import re
import signal
from contextlib import suppress
from pathlib import Path

_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_BLOCKED = re.compile(r"^SigBlk:\s*([0-9a-f]+)$", re.MULTILINE)


def crash(pid: int) -> signal.Signals | None:
    """Return the signal of a crash in whose handler a thread of the process is; None if none is, or it has ended.

    A thread that blocks all of them does so by its own choice, as those of some libraries do.
    """
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(OSError):  # the thread has ended
            if found := _BLOCKED.search(status.read_text()):
                blocked = [number for number in _CRASHES if int(found[1], 16) >> (number - 1) & 1]
                if blocked and len(blocked) < len(_CRASHES):
                    return blocked[0]
    return None
