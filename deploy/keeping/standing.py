"""Arms beside a server: let those that stay stand again when it was started anew, and take one away."""

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from contracts import bundle, model_config
from contracts.errors import ModelConfigError, ProjectError
from deploy.errors import DeployError, ModelError, RepositoryError
from deploy.keeping import loading, readiness
from deploy.proving import questions
from deploy.proving.questions import Examination
from deploy.running.server import Server
from deploy.served import arms, assemble, content, private
from deploy.served.arms import Arm
from deploy.triton.control import Control

_UNLOAD_S = 10.0  # an arm stays until the last request that went through it is answered


def stand_again(server: Server, left_out: Collection[str], load_timeout_s: float) -> dict[str, str]:
    """Let the arms that stay stand beside a server that was started anew and serves already.

    Args:
        left_out: Models; an arm that has one of them is not tried.
        load_timeout_s: For each model of an arm.

    Returns:
        {an arm's model, by its name there: why the arm does not stand}.

    Raises:
        Died: the server did.
    """
    served, failed = Path(server.state.served), dict[str, str]()
    for arm in arms.kept(served):
        if not set(left_out).isdisjoint(arm.names):
            continue
        with Control(server.state) as control:
            try:
                lost = _stand(server, control, arm, load_timeout_s)
            except (ProjectError, OSError) as error:
                lost = {arm.names[0]: str(error)}
            if lost or arm not in arms.kept(served):  # it was taken away meanwhile
                failed |= lost
                withdraw(control, served, arm.names)
    return failed


def withdraw(control: Control, served: Path, names: Collection[str]) -> None:
    """Unload arms and remove them, as far as there still is a server."""
    if not names or not control.live():
        return
    until = time.monotonic() + _UNLOAD_S
    with suppress(DeployError):
        known = {model.name for model in control.models() if not model.never_loaded}
        for name in reversed(in_order(served, names)):
            if name in known:
                with suppress(ModelError):
                    control.unload(name)
        while {m.name for m in control.models() if m.state in ("READY", "UNLOADING")} & set(names):
            if time.monotonic() > until:  # it goes when its last request is answered
                break
            time.sleep(0.01)
        readiness.settle(control, names)
    arms.remove(served, names)


def in_order(folder: Path, names: Collection[str]) -> list[str]:
    """Return models that lie in `folder`, the steps of each before it.

    Raises:
        RepositoryError: an ensemble is, by way of others, a step of itself.
    """
    return sorted_steps({name: steps(folder / name) for name in names})


def sorted_steps(steps: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the models, given {model: its steps}, the steps of each before it.

    Raises:
        RepositoryError: as `in_order`.
    """
    try:
        return [name for name in TopologicalSorter(steps).static_order() if name in steps]
    except CycleError as error:
        raise RepositoryError(f"an ensemble is a step of itself: {' → '.join(error.args[1])}") from error


def steps(folder: Path) -> tuple[str, ...]:
    """Return the steps of the model in `folder`; none of one that is no ensemble, or has no configuration."""
    with suppress(ModelConfigError):  # it is left out, and nothing else for it
        return model_config.steps(model_config.read(folder / model_config.FILE_NAME))
    return ()


def _stand(server: Server, control: Control, arm: Arm, timeout_s: float) -> dict[str, str]:
    """Let an arm stand again, from the same release, and ask each of its models a golden request.

    Returns:
        {a model of it: why it did not load}.

    Raises:
        ManifestError, SignatureError, FolderError, ModelConfigError, OSError: as `assemble.take` and `place`.
        ModelError: it loads, and does not answer as it was proven to.
        Died: the server did.
    """
    state = server.state
    served, suffix = Path(state.served), arms.suffix(arm.version)
    root = Path(state.repository)
    found = content.named(bundle.of(root, arm.network, arm.version), root, served, state.config_name)
    release = replace(found, models={name: folder for name, folder in found.models.items() if name in arm.models})
    with private.scratch(served) as scratch:
        taken = assemble.take(release, scratch / "release", state.trust)
        assemble.place(taken, served, state.config_name, suffix)
        lost = loading.load_alone(server, control, in_order(served, arm.names), timeout_s)
        if not lost:
            ask = questions.at(state.http_address, timeout_s)
            questions.smallest(Examination.of(taken, served, ask, native=state.native, suffix=suffix))
    return lost
