"""Replace the workers of a server that died; a model whose workers die again and again is left out for a while.

While it is out its callers are refused at once, where a dead worker would hold each for two seconds; the other models
go on, and it is tried again after a pause, longer each time.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from deploy.errors import DeployError, ModelError, RepositoryError
from deploy.keeping.backoff import Backoff
from deploy.keeping.quarantine import Quarantine
from deploy.running.server import Server
from deploy.running.workers import Worker, WorkerWatch
from deploy.triton import released
from deploy.triton.control import Control

_FIRST_PAUSE_S = 2.0  # doubled by each death, also by those that are made good at once
_AT_ONCE = 3  # deaths in a row of a model's workers that are made good without a pause


class Replacing:
    """The workers of one server that have died, and what is done about it.

    Args:
        longest_pause_s: Before a model whose workers died again and again is tried anew.
        say: Is told what happens: the level, and the line.
    """

    def __init__(
        self, up: Server, quarantine: Quarantine, longest_pause_s: float, say: Callable[[str, str], None]
    ) -> None:
        self._up, self._quarantine, self._longest_pause_s, self._say = up, quarantine, longest_pause_s, say
        self._deaths: dict[str, Backoff] = {}
        self._out: set[str] = set()
        self._kills = up.memory.kills() if up.memory else 0

    def look(self, watch: WorkerWatch, control: Control) -> str | None:
        """Replace what has died, and try what was left out long enough; return why the server must be restarted."""
        dead: dict[str, Worker] = {worker.model: worker for worker in watch.dead(control)}
        for model, worker in dead.items():
            deaths = self._deaths.setdefault(model, Backoff(self._longest_pause_s, _FIRST_PAUSE_S))
            pause_s = deaths.pause_s()
            why = self._why()
            if deaths.failures <= _AT_ONCE:
                if trouble := self._replace(worker, why, watch, control):
                    return trouble
            else:
                # An unload waits seconds for a dead worker, not for a living one, and readiness is false meanwhile.
                with suppress(DeployError):
                    watch.replace(worker, Path(self._up.state.served), control)
                self._leave_out(model, f"its workers died {deaths.failures} times in a row{why}", pause_s, control)
        for model in [model for model in self._out if self._deaths[model].due]:
            self._try_again(model, watch, control)
        return None

    def _replace(self, worker: Worker, why: str, watch: WorkerWatch, control: Control) -> str | None:
        name = f"a worker of {worker.model} version {worker.version}"
        try:
            watch.replace(worker, Path(self._up.state.served), control)
        except RepositoryError as error:  # it could not even be asked for
            return f"{name} died{why} and could not be replaced: {error}"
        except ModelError as error:
            if control.live():
                self._leave_out(worker.model, f"its worker died{why} and could not be replaced: {error}", 0, control)
            return None
        self._up.update(worker_restarts=self._up.state.worker_restarts + 1)
        self._say("warning", f"{name} died{why}; it was replaced")
        return None

    def _leave_out(self, model: str, reason: str, pause_s: float, control: Control) -> None:
        """Unload a model and, before it, the ensembles above it, which cannot answer without."""
        reason = f"{reason}; tried again every {max(pause_s, 1):.0f} s or less often"
        for name in reversed(self._with_all_above(model)):
            try:
                control.unload(name)
            except DeployError as error:
                self._say("error", str(error))
        self._out.add(model)
        self._quarantine.add(model, reason, passing=True)
        self._up.update(left_out=self._quarantine.cases)
        self._say("fatal", f"{model} is left out: {reason}")

    def _try_again(self, model: str, watch: WorkerWatch, control: Control) -> None:
        self._out.discard(model)
        try:
            for name in self._with_all_above(model):
                control.load(name)
        except ModelError as error:
            self._deaths[model].pause_s()
            self._out.add(model)
            self._say("error", f"{model} stays left out: {error}")
            return
        watch.refresh()
        self._quarantine.release([model])
        self._up.update(left_out=self._quarantine.cases, worker_restarts=self._up.state.worker_restarts + 1)
        self._say("warning", f"{model} is served again")

    def _with_all_above(self, model: str) -> list[str]:
        return released.with_all_above(Path(self._up.state.served), {model}, self._up.state.config_name)

    def _why(self) -> str:
        """Say that the kernel ended it for want of memory, if it did."""
        if self._up.memory is None or (kills := self._up.memory.kills()) == self._kills:
            return ""
        self._kills = kills
        return f" for want of memory (--memory: {self._up.memory})"
