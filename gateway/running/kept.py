"""Processes beside this one, started again when they end, and stopped with it."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cli import children
from contracts import layout

_LONGEST_PAUSE_S, _STEADY_S = 30.0, 60.0
log = logging.getLogger("gateway.running")


@dataclass
class Kept:
    """A process that is kept running.

    Attributes:
        on_end: Told of each process that has ended.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    pass_fds: Sequence[int] = ()
    on_end: Callable[[int], object] = lambda _: None
    _process: "subprocess.Popen[bytes] | None" = None
    _ending: threading.Event = field(default_factory=threading.Event)
    _starting: "threading.RLock" = field(default_factory=threading.RLock)  # also by a signal that comes meanwhile
    _thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Its number; None while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it, and again whenever it ends, after a pause that grows."""
        self.begin()
        self.keep()

    def begin(self) -> None:
        """Start it, this once."""
        # A session of its own: Ctrl-C is told to us, and we tell it.
        self._process = subprocess.Popen(
            [*self.command],
            cwd=layout.ROOT,
            env=dict(self.environment),
            pass_fds=[*self.pass_fds],
            start_new_session=True,
            preexec_fn=_ends_with(os.getpid()),
        )

    def keep(self) -> None:
        """From now on start it again whenever it ends, after a pause that grows."""
        self._thread = threading.Thread(target=self._keep, name="kept", daemon=True)
        self._thread.start()

    def signal(self, number: int) -> None:
        """Send it a signal; from now on it is not started again."""
        with self._starting:
            self._ending.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, wait_s: float) -> None:
        """Stop it, by SIGKILL if it does not end in time. Meanwhile signals have no effect on us: it would be left."""
        with children.undisturbed():
            if not self._ending.is_set():  # else it was told: a second time would be impatience
                self.signal(signal.SIGTERM)
            assert self._process is not None
            try:
                self._process.wait(wait_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._thread is not None:
                self._thread.join(5)

    def _keep(self) -> None:
        pause_s = 0.25
        while not self._ending.is_set():
            assert self._process is not None
            began = time.monotonic()
            code = self._process.wait()
            self.on_end(self._process.pid)
            if self._ending.is_set():
                return
            pause_s = 0.25 if time.monotonic() - began > _STEADY_S else min(2 * pause_s, _LONGEST_PAUSE_S)
            log.error("%s ended with %d; it is started again", self.command[2], code)
            if self._ending.wait(pause_s):
                return
            with self._starting:  # who stops it meanwhile stops this one
                if self._ending.is_set():
                    return
                self.begin()


@contextmanager
def beside(command: Sequence[str], environment: Mapping[str, str], stop_s: float = 30.0) -> Iterator[Kept]:
    """Keep a process running while the block does."""
    made = Kept(command, environment)
    made.start()
    try:
        yield made
    finally:
        made.stop(stop_s)


def _ends_with(parent: int) -> Callable[[], None]:
    """End a process with the one that starts it."""

    def in_child() -> None:
        children.end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)

    return in_child
