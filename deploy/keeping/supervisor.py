"""Keep a server up: restart it when it has died or hangs, leave out what does harm, back off, and never give up."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import ProjectError
from deploy.errors import ModelError, StartError
from deploy.keeping import asking, loading, readiness, standing
from deploy.keeping.backoff import Backoff
from deploy.keeping.holds import Holds
from deploy.keeping.loading import Died, Outcome
from deploy.keeping.quarantine import Quarantine, fingerprint
from deploy.keeping.replacing import Replacing
from deploy.running import hold, logs, server
from deploy.running.server import Server
from deploy.running.warm_up import WarmUps
from deploy.served import inside, missing
from deploy.triton import released, state
from deploy.triton.control import Control, ModelVersion
from deploy.triton.settings import Settings

_LOOK_EVERY_S = 0.2
_INDEX_EVERY_S = 1.0  # what the server has in it
_ASK_EVERY_S = 5.0  # whether it is alive; each unanswered question takes two seconds more
_UNANSWERED = 3  # questions in a row, and it hangs


@dataclass(frozen=True)
class Patience:
    """How long is waited for what."""

    load_timeout_s: float = 120  # for a model to load
    longest_pause_s: float = 60  # before what has died again and again is started anew


class Supervisor:
    """A server and what it takes to keep it up.

    Args:
        say: Is told what happens.
    """

    def __init__(self, settings: Settings, patience: Patience, say: Callable[[str], None]) -> None:
        self._settings, self._patience, self._print = settings, patience, say
        self._quarantine = Quarantine(settings.repository)
        self._served: dict[str, tuple[set[int], str]] = {}  # the versions that served last, and their files
        self._holds = Holds(settings.repository)
        self._crashes = Backoff(patience.longest_pause_s)
        self._warm_ups = WarmUps()
        self._up: Server | None = None

    def run(self, ready: Callable[[Server, list[ModelVersion]], None]) -> None:
        """Serve until this process is told to stop.

        Args:
            ready: Called once, when every model is that is not left out.

        Raises:
            StartError: at the first start nothing could be served or, where the settings are strict, not everything.
            ManifestError, SignatureError, …: as `server.start`, at the first start.
        """
        try:
            up, found = self._bring_up()
            ready(up, found)
            while True:
                trouble: str | None = self._trouble(up)
                while trouble:
                    up, trouble = self._restart(up, trouble)
        finally:
            if self._up is not None:
                server.stop(self._up)
            self._holds.close()

    def _bring_up(self, replaces: Server | None = None) -> tuple[Server, list[ModelVersion]]:
        """Start a server with what can be served; a model that takes it down meanwhile is left out of the next one.

        Raises:
            StartError, …: as `run`.
        """
        later = self._doubtful() if replaces else set()
        known = self._served.keys() - later if replaces else set()
        while True:
            self._quarantine.review()
            failed = self._quarantine.reasons()
            later -= failed.keys()
            up = self._up = server.start(self._settings, self._print, replaces, failed, later, held=True)
            self._print(f"Starting tritonserver (process {up.process.pid}) …")
            for model in up.state.failed.keys() - failed.keys():  # its release is not what was published
                self._quarantine.add(model, up.state.failed[model])
            try:
                outcome = loading.load(up, self._patience.load_timeout_s)
                asking.ask(up, outcome, known, self._patience.load_timeout_s, self._print)
                found = self._settle(up, outcome)
                self._stand_again(up)
            except Died as died:
                if self._settings.strict and not all(map(self._is_arm, {*died.culprits, *died.suspects})):
                    raise StartError(died.how, hint=server.SEE_LOG) from died
                self._leave_out(died.culprits)
                later |= died.suspects
                self._say("error", f"{died.how}; starting it again{_without(died)}")
                up.process.kill()
                server.clean_up(up)
                replaces = up
                continue
            return up, found

    def _settle(self, up: Server, outcome: Outcome) -> list[ModelVersion]:
        """Leave out what did not load; return what is served.

        Raises:
            StartError: that is nothing, or the settings are strict.
        """
        root, config_name = self._settings.repository, up.state.config_name
        if outcome.failed:
            self._leave_out(outcome.failed)
            groups = missing.left_out(root, Path(up.state.served), config_name, self._quarantine.reasons())
            nothing = released.names(groups) >= {path.parent.name for path in root.glob("*/config.pbtxt")}
            if nothing or self._settings.strict:
                fact = "nothing is left to serve:" if nothing else "not every model loaded:"
                raise StartError("\n  ".join([fact, *outcome.told(groups)]), hint=server.SEE_LOG)
            up.left_out = groups
        self._note_served(outcome.found)
        self._warm_ups = WarmUps()
        with Control(up.state) as control:
            self._warm_ups.begin(control)
            self._make_ready(control, {**outcome.failed, hold.NAME: ""})
            hold.remove(Path(up.state.served))
        up.watch.refresh()  # before anybody is told: one that dies from now on has been seen
        up.watch.learn({(v.name, v.version) for v in outcome.found if v.state == "READY"})
        up.update(phase="ready", left_out=self._quarantine.cases, warm_up=self._warm_ups.noted)
        return released.without(outcome.found, up.left_out)

    def _stand_again(self, up: Server) -> None:
        """Let the arms that were asked for stand beside a server that was restarted; one that does not is left out."""
        if failed := standing.stand_again(up, self._quarantine.cases, self._patience.load_timeout_s):
            self._leave_out(failed)
            up.update(left_out=self._quarantine.cases)
        up.watch.refresh()

    def _is_arm(self, model: str) -> bool:
        return not (self._settings.repository / model).is_dir()

    def _trouble(self, up: Server) -> str:
        """Wait until the server has to be restarted; return why."""
        replacing = Replacing(up, self._quarantine, self._patience.longest_pause_s, self._say)
        unanswered, ask_at, index_at = 0, time.monotonic() + _ASK_EVERY_S, 0.0
        with Control(up.state, timeout_s=2) as control:
            while True:
                if how := up.end():
                    return f"tritonserver {how}"
                if trouble := replacing.look(up.watch, control):
                    return trouble
                if time.monotonic() >= index_at:
                    if how := loading.ended(up):
                        return f"tritonserver {how}"
                    self._look_at_models(up, control)
                    index_at = time.monotonic() + _INDEX_EVERY_S
                if time.monotonic() >= ask_at:
                    unanswered = 0 if control.live() else unanswered + 1
                    if unanswered == _UNANSWERED:
                        return "tritonserver does not answer any more"
                    up.watch.refresh()  # what a reload has started since
                    ask_at = time.monotonic() + (0 if unanswered else _ASK_EVERY_S)
                time.sleep(_LOOK_EVERY_S)

    def _restart(self, up: Server, trouble: str) -> tuple[Server, str | None]:
        """Start it again after a pause, longer each time; return what is wrong with the new one, if anything is."""
        pause_s = self._crashes.pause_s()
        if self._crashes.is_loop:
            row = f"{self._crashes.failures} times in a row: it goes on trying"
            self._say("fatal", f"{trouble}; {row}, the next time in {pause_s:g} s")
        else:
            self._say("error", f"{trouble}; restarting it in {pause_s:g} s")
        up.update(phase="crash loop" if self._crashes.is_loop else "restarting")
        up.process.kill()  # one that hangs would not drain
        server.clean_up(up)
        time.sleep(pause_s)
        try:
            up, _ = self._bring_up(replaces=up)
        except ProjectError as error:
            return self._up or up, f"the restarted server is not ready: {error}"
        self._say("info", f"Ready again (process {up.process.pid})")
        return up, None

    def _look_at_models(self, up: Server, control: Control) -> None:
        """See what the server has in it by now, as after a reload: what serves again, and what did not load."""
        found = control.models()
        if not found:
            return
        before = {(name, version) for name, (versions, _) in self._served.items() for version in versions}
        serving = self._note_served(found)
        ready = {(version.name, version.version) for version in found if version.state == "READY"}
        up.watch.learn(ready - before)  # what a reload has started, and what has died since
        changed = self._quarantine.release(serving)
        failed: dict[str, str] = {}
        if not any(version.state in ("LOADING", "UNLOADING") for version in found):
            for version in found:
                # An arm that did not load is put away by the command that tries it.
                is_new = version.failed and version.reason and version.name not in serving
                if is_new and not self._is_arm(version.name):
                    failed[version.name] = f"version {version.version}: {version.reason}"
        self._leave_out(failed)
        if self._warm_ups.look(control) or changed or failed:
            up.update(left_out=self._quarantine.cases, warm_up=self._warm_ups.noted)
        if failed:  # only now: who finds the server ready again finds what is left out of it
            self._make_ready(control, failed)

    def _make_ready(self, control: Control, failed: Mapping[str, str]) -> None:
        try:
            readiness.settle(control, failed)
        except ModelError as error:
            self._say("error", str(error))

    def _note_served(self, found: list[ModelVersion]) -> set[str]:
        """Note which versions serve, with their files as they are when they begin to; return the models."""
        root, serving = self._settings.repository, dict[str, set[int]]()
        for version in found:
            if version.state == "READY":
                serving.setdefault(version.name, set()).add(version.version)
        self._holds.keep(serving)
        known, self._served = self._served, {}
        for name, versions in serving.items():
            as_before = name in known and known[name][0] == versions
            self._served[name] = known[name] if as_before else (versions, fingerprint(root / name))
        return set(serving)

    def _doubtful(self) -> set[str]:
        """Return the models that the server before did not serve as they are now: nobody has seen them load."""
        root = self._settings.repository
        proven = {name for name, (_, then) in self._served.items() if fingerprint(root / name) == then}
        if self._up is not None and (served := Path(self._up.state.served)).is_dir():
            for model, steps in inside.run_in(served).items():
                proven |= {step for step in steps if model in proven and not (served / step).is_dir()}
        return {path.parent.name for path in root.glob("*/config.pbtxt")} - proven

    def _leave_out(self, failed: Mapping[str, str]) -> None:
        for model, reason in failed.items():
            self._quarantine.add(model, reason)
            self._say("error", f"{model} is left out: {reason}")

    def _say(self, level: str, line: str) -> None:
        """Tell whoever started it, and the log, where the pager looks."""
        logs.write(state.log_file(), level, line)
        self._print(line)


def _without(died: Died) -> str:
    if died.culprits:
        return f" without {', '.join(sorted(died.culprits))}"
    return f"; {', '.join(sorted(died.suspects))} will be loaded alone, after the others"
