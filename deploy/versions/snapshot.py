"""What a server serves of a model: noted before a change, verified after it, restored if that failed."""

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from contracts import repository
from deploy.errors import ModelError, NotRunningError, WrongAnswerError
from deploy.served.links import link
from deploy.triton.control import Control, ModelVersion

_UNLOAD_S = 10.0  # an old version stays until its last request is answered
_LOAD_S = 300.0


@dataclass(frozen=True)
class Snapshot:
    """What was served of a model, and which models were, before it was changed."""

    model: str
    versions: list[int]
    config: Mapping[str, Any]
    served_models: frozenset[str]  # this one and all others

    @classmethod
    def take(cls, control: Control, model: str) -> Self:
        """Ask the server what it serves at the moment.

        Raises:
            NotRunningError: the server does not answer.
        """
        found = control.models()
        if not found:
            raise NotRunningError("the server does not answer", hint="python -m deploy status")
        versions = sorted(m.version for m in found if m.name == model and m.state == "READY")
        return cls(model, versions, control.config(model) if versions else {}, ready_models(found))

    @property
    def answering(self) -> int | None:
        """The version that answers requests which name none."""
        return max(self.versions, default=None)


def verify(control: Control, before: Snapshot, on_disk: Collection[int]) -> int:
    """Ask the server whether it serves what it should of the versions `on_disk`; return the one that answers.

    Raises:
        ModelError: a version is not ready, another one answers, or another model went down with it.
    """
    model, expected = before.model, _by_policy(control.config(before.model), sorted(on_disk))
    found = control.models()
    if missing := sorted({*expected} - {m.version for m in found if m.name == model and m.state == "READY"}):
        raise ModelError(f"{model} version {', '.join(map(str, missing))} is not ready although it was loaded")
    if lost := sorted(before.served_models - ready_models(found)):
        raise ModelError(
            f"with this {model}, {', '.join(lost)} does not serve any more",
            note="an ensemble and its steps have to agree on names, types, shapes and max_batch_size",
        )
    if (answering := control.answering_version(model)) != max(expected):
        raise ModelError(f"{model}: version {answering} answers and not {max(expected)}")
    return answering


def check_answers(control: Control, before: Snapshot, answering: int) -> None:
    """Send a version that has taken over from another one its golden requests.

    Raises:
        WrongAnswerError: an answer is not the reference's.
    """
    if before.answering in (None, answering):  # there is nothing to go back to
        return
    if told := control.wrong_answer(before.model, answering):
        raise WrongAnswerError(f"{before.model} version {answering} gives {told}")


def restore(control: Control, before: Snapshot, directory: Path) -> None:
    """Make the server serve the copy in `directory` again, which is what it served before.

    A version that failed to load stays in Triton's index, and /v2/health/ready false, until that version has been
    loaded and unloaded. So it is, as one that serves.

    Raises:
        ModelError: that does not load, either.
    """
    there = repository.versions(directory)
    found = [m for m in control.models() if m.name == before.model and m.failed]
    failed = [directory / str(m.version) for m in found if m.version not in there]
    if failed and before.answering in there:
        for stand_in in failed:
            link(directory / str(before.answering), stand_in)
        try:
            versions = [*before.versions, *(int(stand_in.name) for stand_in in failed)]
            control.load(before.model, config=_of_versions(before, versions))
        finally:
            for stand_in in failed:
                shutil.rmtree(stand_in, ignore_errors=True)
    control.load(before.model)


def wait_until_loaded(control: Control, models: Collection[str]) -> None:
    """Wait for loads that somebody else asked for, who may have been killed since.

    Raises:
        ModelError: one takes too long.
    """
    until = time.monotonic() + _LOAD_S
    while loading := sorted({m.name for m in control.models() if m.state == "LOADING"}.intersection(models)):
        if time.monotonic() > until:
            raise ModelError(f"{loading[0]} has been loading for {_LOAD_S:.0f} s", hint="python -m deploy logs")
        time.sleep(0.05)


def wait_until_unloaded(control: Control) -> None:
    """Wait until what was replaced is gone, some seconds at most: until then /v2/health/ready is false."""
    until = time.monotonic() + _UNLOAD_S
    while not control.ready() and time.monotonic() < until:
        time.sleep(0.05)


def ready_models(versions: Sequence[ModelVersion]) -> frozenset[str]:
    """Return the names of the models of which a version serves."""
    return frozenset(v.name for v in versions if v.state == "READY")


def _by_policy(config: Mapping[str, Any], on_disk: Sequence[int]) -> list[int]:
    """Return the versions that Triton loads of those on disk (ascending)."""
    policy = config.get("version_policy", {})
    if specific := policy.get("specific"):
        return [version for version in on_disk if version in map(int, specific["versions"])]
    if "all" in policy:
        return list(on_disk)
    return list(on_disk[-int(policy.get("latest", {}).get("num_versions", 1)) :])


def _of_versions(before: Snapshot, versions: Sequence[int]) -> dict[str, Any]:
    return {**before.config, "version_policy": {"specific": {"versions": sorted(versions)}}}
