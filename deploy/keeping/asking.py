"""Ask each release that a server has loaded before it takes traffic, that is before the server is said to be ready.

Every release is asked a golden request. One that no server has served as it is yet, as it was published where there was
none, is asked all that the serve gate asks.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from contracts import manifest
from contracts.errors import ProjectError
from deploy.errors import ModelError, NoAnswerError
from deploy.keeping import loading
from deploy.keeping.loading import Died, Outcome
from deploy.proving import questions
from deploy.proving.questions import Examination
from deploy.running import workers
from deploy.running.server import Server
from deploy.served import assemble
from deploy.served.assemble import Taken
from deploy.triton import released
from deploy.triton.control import Control

_UNLOAD_S, _LOOK_EVERY_S = 10.0, 0.02


def ask(server: Server, outcome: Outcome, known: Collection[str], timeout_s: float, say: Callable[[str], None]) -> None:
    """Ask the releases that serve; unload those that do not answer as they were proven to, and note why.

    Args:
        outcome: What has become of the models so far.
        known: Networks whose release has passed on a server before this one, as it is.
        timeout_s: For an answer. The workers of a model that takes longer are killed.
        say: Is told what was asked of a release that is new.

    Raises:
        Died: the server did.
    """
    ready = {(version.name, version.version) for version in outcome.found if version.state == "READY"}
    failed: dict[str, str] = {}
    with Control(server.state) as control:
        for release in _releases(Path(server.state.served)):
            if not all((model, release.version) in ready for model in release.models):
                continue  # why is said elsewhere
            try:
                _examine(server, release, release.is_new and release.network not in known, timeout_s, say)
            except ProjectError as error:
                if how := loading.ends_soon(server):
                    told = f"tritonserver {how} while {release.network} was asked its golden requests"
                    raise Died(told, {release.network: told}) from error
                if isinstance(error, NoAnswerError):
                    _end_its_requests(server, control, release)
                failed[release.network] = str(error)
                _unload(server, control, release)
        if failed:
            outcome.failed |= failed
            outcome.found = loading.found(server, control)


def _examine(server: Server, release: Taken, is_new: bool, timeout_s: float, say: Callable[[str], None]) -> None:
    """Ask a release.

    Raises:
        ModelError: it does not answer as it was proven to.
        ManifestError, ModelConfigError: it is damaged.
    """
    served, state = Path(server.state.served), server.state
    examination = Examination.of(release, served, questions.at(state.http_address, timeout_s), native=state.native)
    if not is_new:
        questions.smallest(examination)
        return
    name = f"{release.network} version {release.version}"
    say(f"No server has served {name} yet; asking it all its golden requests …")
    counts = {what: question(examination) for what, question in questions.ALL.items()}
    say(f"✓ {name} serves as it was proven: {', '.join(f'{what} {count}' for what, count in counts.items())}")


def _releases(served: Path) -> Iterator[Taken]:
    """Yield the releases that lie in a private repository, with those of their models that are there."""
    for path in sorted(served.glob(f"*/*/{manifest.FILE_NAME}")):
        release = manifest.read(path.parent)
        if path.parent.name == str(release.version) and path.parent.parent.name == release.model:
            names = [release.model, *assemble.models_of(served, release.model)]
            models = {name: served / name for name in names}
            yield Taken(release.model, release.version, path.parent, models, bool(release.models))


def _end_its_requests(server: Server, control: Control, release: Taken) -> None:
    """Replace the workers of a release that hangs: those requests fail, and no unload waits for them."""
    server.watch.refresh()
    workers.kill(server.state.shared_memory, release.models)
    for worker in server.watch.dead(control):
        with suppress(ProjectError):
            server.watch.replace(worker, Path(server.state.served), control)


def _unload(server: Server, control: Control, release: Taken) -> None:
    """Unload a release, and before it what needs it, and wait until it is gone: the server is not ready meanwhile."""
    served, until = Path(server.state.served), time.monotonic() + _UNLOAD_S
    names = released.with_all_above(served, set(release.models), server.state.config_name)
    for name in reversed(names):
        with suppress(ModelError):
            control.unload(name)
    while any(v.name in names and v.state == "UNLOADING" for v in control.models()) and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S)
