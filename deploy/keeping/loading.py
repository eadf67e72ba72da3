"""Bring up the models of a server that was started, and tell of one that dies meanwhile which model may be to blame.

Triton loads most of them itself, several at once, before it opens its ports. It cannot stop a load, and a model that
crashes while it is loaded ends the server: whatever was loading then is under suspicion. Suspects are loaded alone, one
after the other, once the others serve; with the next crash it is certain who did it.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from contracts import model_config
from contracts.errors import ModelConfigError
from deploy.errors import ModelError, StartError
from deploy.running import hold, logs, pulse, workers
from deploy.running.server import SEE_LOG, Server, died_while_starting, loaded_nothing
from deploy.triton import released, state
from deploy.triton.control import Control, ModelVersion, models_not_ready
from deploy.triton.released import LeftOut

_LOOK_EVERY_S = 0.05
_LAST_WORDS_S = 1.0  # that a crashing server has to say where
_SETTLED_S = 10.0  # within which a load ends once its worker was killed


class Died(Exception):  # noqa: N818  # no error of the user's: the server is started again without the culprit
    """The server ended while it loaded models, or had to be ended.

    Attributes:
        culprits: {model that did it: how}.
        suspects: Models that may have done it, where nobody is certain.
    """

    def __init__(
        self, how: str, culprits: Mapping[str, str] = MappingProxyType({}), suspects: Set[str] = frozenset()
    ) -> None:
        super().__init__(how)
        self.how, self.culprits, self.suspects = how, dict(culprits), set(suspects)


@dataclass
class Outcome:
    """What became of the models that a server was to serve."""

    found: list[ModelVersion] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # {model that did not load: why}

    def told(self, groups: Sequence[LeftOut]) -> list[str]:
        """Say of each model why it is not served, a line each: those that failed, and those that need one of them."""
        lines = [f"{model}{' ' if why.startswith('version ') else ': '}{why}" for model, why in self.failed.items()]
        serving = {version.name for version in self.found if version.state == "READY"}
        above = {name for group in groups if group.failed for name in group.models} - serving - self.failed.keys()
        return lines + [f"{name}: a model that it needs is not ready" for name in sorted(above)]


def load(server: Server, load_timeout_s: float) -> Outcome:
    """Wait for the models that load together, then load those that were held back, one after the other.

    Args:
        load_timeout_s: For each model. The worker of one that takes longer is killed, which ends its load.

    Raises:
        Died: the server did.
        StartError: the server ended, or does not answer, and no model has to do with it.
    """
    outcome = Outcome()
    with Control(server.state) as control:
        hung = _wait_for_the_ports(server, control, load_timeout_s)
        held_back = {*server.later, hold.NAME}
        _judge(server, [m for m in control.models() if m.name not in held_back], hung, outcome)
        outcome.failed = load_alone(server, control, server.later, load_timeout_s, outcome.failed)
        outcome.found = found(server, control)
    return outcome


def found(server: Server, control: Control) -> list[ModelVersion]:
    """Return the versions that the server has of what is not left out."""
    versions = [version for version in control.models() if version.name != hold.NAME]
    return released.without(versions, server.left_out)


def load_alone(
    server: Server,
    control: Control,
    models: Sequence[str],
    load_timeout_s: float,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Load models one after the other, steps before the ensembles above; not those that need one that failed.

    Args:
        load_timeout_s: As of `load`.
        failed: {model that did not load before: why}.

    Returns:
        The same, and those of the models that did not load.

    Raises:
        Died: the server did.
    """
    lost = dict(failed)
    for model in models:
        out = {name for culprit in lost for name in _with_all_above(server, culprit)}
        if model not in out and (reason := _load(server, control, model, load_timeout_s)):
            lost[model] = reason
    return lost


def ended(server: Server) -> str | None:
    """Say how the server ended, or that it crashed and only seems to run; None while it does."""
    if how := server.end():
        return how
    if (number := pulse.crash(server.process.pid)) is None:
        return None
    until = time.monotonic() + _LAST_WORDS_S
    while time.monotonic() < until:
        if how := server.end():
            return how
        time.sleep(_LOOK_EVERY_S)
    return f"crashed with {number.name}, and hangs"


def ends_soon(server: Server) -> str | None:
    """Say how the server ended; the connection to a server that dies breaks before the process is gone."""
    until = time.monotonic() + _LAST_WORDS_S
    while time.monotonic() < until:
        if how := ended(server):
            return how
        with Control(server.state, timeout_s=2) as control:
            if control.live():
                return None
        time.sleep(_LOOK_EVERY_S)
    return None


def _wait_for_the_ports(server: Server, control: Control, load_timeout_s: float) -> dict[str, str]:
    """Wait until Triton answers, which it does when all that it loads at its start has loaded or failed.

    Returns:
        {model whose load took too long and was ended: that}.
    """
    hung: dict[str, str] = {}
    silent_since = time.monotonic()
    while True:
        loading = server.progress.loading()
        if how := ended(server):
            raise _died(server, how, hung, loading)
        answers = control.live()  # asked first: when it answers, it has loaded what it can
        if control.models():
            return hung
        if answers:
            raise loaded_nothing(server)
        if loading:
            silent_since = time.monotonic()
        if slow := server.progress.slower_than(load_timeout_s) & _together(server):
            killed = workers.kill(server.state.shared_memory, slow)
            hung |= dict.fromkeys(killed, _too_slow(load_timeout_s))
            server.progress.drop(killed)
            if not killed:  # it computes in the server's own process
                raise Died(f"{', '.join(sorted(slow))} did not load in time", hung, slow)
        elif time.monotonic() - silent_since > load_timeout_s:
            server.process.kill()
            note = logs.last_errors(state.log_file(), 5, server.started)
            raise StartError(f"tritonserver does not answer after {load_timeout_s:.0f} s", note=note, hint=SEE_LOG)
        time.sleep(_LOOK_EVERY_S)


def _died(server: Server, how: str, hung: Mapping[str, str], loading: Set[str]) -> Died | StartError:
    """Judge who did it. A server that ends itself has a reason of its own, such as a port that is taken."""
    server.recorder.join(timeout=2)
    together = _together(server)
    suspects = (loading | server.progress.loading()) & together - hung.keys()
    if hung or suspects:
        return Died(f"tritonserver {how} while it loaded {', '.join(sorted({*hung, *suspects}))}", hung, suspects)
    code = server.process.poll()
    if together and (code is None or code < 0):
        return Died(f"tritonserver {how} while starting", {}, together)
    return died_while_starting(server, how)


def _together(server: Server) -> set[str]:
    """Return the models that Triton loads at its start."""
    folders = {path.parent.name for path in Path(server.state.served).glob("*/config.pbtxt")}
    return folders - released.names(server.left_out) - {*server.later, hold.NAME}


def _judge(server: Server, found: list[ModelVersion], hung: Mapping[str, str], outcome: Outcome) -> None:
    """Note which of the models that Triton loaded at its start failed, and why; not those that only need one."""
    found = released.without(found, server.left_out)
    broken = models_not_ready(found)
    only_need_one = {above for model in broken for above in _with_all_above(server, model) if above != model}
    for model in sorted(broken - only_need_one or broken):  # ensembles may go in a circle
        told = [f"version {m.version}: {m.reason}" for m in found if m.name == model and m.reason]
        outcome.failed[model] = hung.get(model) or "; ".join(told) or _from_the_log(server, model)


def _load(server: Server, control: Control, model: str, load_timeout_s: float) -> str | None:
    """Load one model; return why it did not load, None if it did."""
    loading = _in_a_thread(lambda: control.load(model, timeout_s=load_timeout_s + 2 * _SETTLED_S))
    begun, hung = time.monotonic(), False
    while not loading.done():
        if how := ended(server):
            raise Died(f"tritonserver {how} while it loaded {model}", {model: _did(how)})
        taken_s = time.monotonic() - begun
        if taken_s > load_timeout_s and not hung:
            hung = True
            workers.kill(server.state.shared_memory, {model})
        elif taken_s > load_timeout_s + _SETTLED_S:
            raise Died(f"{model} did not load in time", {model: _too_slow(load_timeout_s)})
        time.sleep(_LOOK_EVERY_S)
    error = loading.exception()
    if error is None:
        return None
    if how := ends_soon(server):
        raise Died(f"tritonserver {how} while it loaded {model}", {model: _did(how)})
    if not isinstance(error, ModelError):
        raise error
    if hung:
        return _too_slow(load_timeout_s)
    told = [f"version {m.version}: {m.reason}" for m in control.models() if m.name == model and m.failed and m.reason]
    return "; ".join(told) or _from_the_log(server, model)


def _with_all_above(server: Server, model: str) -> list[str]:
    return released.with_all_above(Path(server.state.served), {model}, server.state.config_name)


def _from_the_log(server: Server, model: str) -> str:
    """Return why a model could not even be begun: only the log tells, and not what is wrong in a configuration."""
    folder = Path(server.state.served, model)
    path = model_config.chosen(folder, server.state.config_name)
    try:
        model_config.parse(path.read_bytes(), str(path.relative_to(folder.parent)))
    except ModelConfigError as error:
        return str(error).replace("\nNote: ", ": ").splitlines()[0]
    except OSError:
        pass
    return logs.last_error_about(state.log_file(), model, server.started) or "Triton does not say why it did not load"


def _did(how: str) -> str:
    return f"tritonserver {how} while it was loaded"


def _too_slow(load_timeout_s: float) -> str:
    return f"it did not load within {load_timeout_s:g} s (--load-timeout)"


def _in_a_thread(call: Callable[[], None]) -> "Future[None]":
    future: Future[None] = Future()

    def work() -> None:
        try:
            call()
            future.set_result(None)
        except BaseException as error:  # whoever asks for the result has it
            future.set_exception(error)

    threading.Thread(target=work, name="loading", daemon=True).start()
    return future
