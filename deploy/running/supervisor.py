"""Keep a server up: restart it when it has died or hangs, replace workers that died, give up loudly."""

import collections
import time
from collections.abc import Callable
from pathlib import Path

from deploy.errors import DeployError, StartError
from deploy.running import logs, server, workers
from deploy.triton import state
from deploy.triton.control import Control, ModelVersion
from deploy.triton.settings import Settings

_LOOK_EVERY_S = 0.2
_ASK_EVERY_S = 5.0  # whether it is alive; each unanswered question takes two seconds more
_UNANSWERED = 3  # questions in a row, and it hangs
_FIRST_PAUSE_S = 0.5
_WINDOW_S = 300.0  # in which restarts are counted


class Supervisor:
    """A server and what it takes to keep it up.

    Args:
        timeout_s: For the models to load.
        max_restarts: Within five minutes; one more death, and it gives up.
        say: Is told what happens.
    """

    def __init__(self, settings: Settings, timeout_s: float, max_restarts: int, say: Callable[[str], None]) -> None:
        self._settings, self._timeout_s, self._max_restarts, self._print = settings, timeout_s, max_restarts, say
        self._restarted: collections.deque[float] = collections.deque()  # when, in the last five minutes
        self._up = server.start(settings, say)

    def run(self, ready: Callable[[server.Server, list[ModelVersion]], None]) -> None:
        """Serve until this process is told to stop.

        Args:
            ready: Called once, when every model is.

        Raises:
            StartError: a model did not load, or the server died more often than it may.
            ManifestError, SignatureError: a file changed since, and the restarted server shall not serve it.
        """
        try:
            self._print(f"Starting tritonserver (process {self._up.process.pid}) …")
            ready(self._up, server.wait_until_ready(self._up, self._timeout_s))
            while True:
                trouble: str | None = self._trouble()
                while trouble:
                    trouble = self._restart(trouble)
        finally:
            server.stop(self._up)

    def _trouble(self) -> str:
        """Wait until the server has to be restarted; return why."""
        watch = self._up.watch
        unanswered, ask_at = 0, time.monotonic() + _ASK_EVERY_S
        with Control(self._up.state, timeout_s=2) as control:
            while True:
                if ended := self._up.end():
                    return f"tritonserver {ended}"
                for worker in watch.dead(control):
                    if trouble := self._replace(worker, watch, control):
                        return trouble
                if time.monotonic() >= ask_at:
                    unanswered = 0 if control.live() else unanswered + 1
                    if unanswered == _UNANSWERED:
                        return "tritonserver does not answer any more"
                    watch.refresh()  # what a reload has started since
                    ask_at = time.monotonic() + (0 if unanswered else _ASK_EVERY_S)
                time.sleep(_LOOK_EVERY_S)

    def _replace(self, worker: workers.Worker, watch: workers.WorkerWatch, control: Control) -> str | None:
        """Replace a worker that died; return why that did not go, if it did not."""
        name = f"a worker of {worker.model} version {worker.version}"
        try:
            watch.replace(worker, Path(self._up.state.repository), control)
        except DeployError as error:
            return f"{name} died and could not be replaced: {error}"
        self._up.update(worker_restarts=self._up.state.worker_restarts + 1)
        self._say("warning", f"{name} died; it was replaced")
        return None

    def _restart(self, trouble: str) -> str | None:
        """Start it again after a pause, longer each time; return what is wrong with the new one, if anything is."""
        while self._restarted and time.monotonic() - self._restarted[0] > _WINDOW_S:
            self._restarted.popleft()
        restarts = len(self._restarted)
        if restarts >= self._max_restarts:
            given_up = f"{trouble}; giving up after {restarts} restarts in {_WINDOW_S / 60:.0f} minutes"
            logs.write(state.log_file(), "fatal", given_up)
            raise StartError(
                given_up,
                hint=f"{server.SEE_LOG}; is a version broken? python -m deploy rollback MODEL",
            )
        pause_s = _FIRST_PAUSE_S * 2**restarts
        self._restarted.append(time.monotonic())
        self._say(
            "error", f"{trouble}; restarting it in {pause_s:g} s ({restarts + 1} of at most {self._max_restarts})"
        )
        self._up.update(phase="restarting")
        self._up.process.kill()  # one that hangs would not drain
        server.clean_up(self._up)
        time.sleep(pause_s)
        try:
            self._up = server.start(self._settings, self._print, replaces=self._up)
            server.wait_until_ready(self._up, self._timeout_s)
        except DeployError as error:
            return f"the restarted server is not ready: {error}"
        self._say("info", f"Ready again (process {self._up.process.pid})")
        return None

    def _say(self, level: str, line: str) -> None:
        """Tell whoever started it, and the log, where the pager looks."""
        logs.write(state.log_file(), level, line)
        self._print(line)
