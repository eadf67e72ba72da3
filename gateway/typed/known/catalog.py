"""The models of the typed door: their types, made once for each version, and what their releases say of themselves."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ModelConfigError
from gateway.brain.decide import Brain
from gateway.caller import Caller
from gateway.deadline import Deadline
from gateway.errors import UpstreamError
from gateway.refusals import NO_MODELS
from gateway.triton.models import Model
from gateway.typed.known import releases, signatures
from gateway.typed.known.releases import Release
from gateway.typed.known.signatures import Signature

_LIST_S, _ASK_S = 2.0, 5.0
_MOST_KEPT = 512


@dataclass(frozen=True)
class Listed:
    """A model as the typed door has it."""

    signature: Signature
    release: Release


class Catalog:
    """Knows the models that are served.

    Args:
        repository: Where releases lie; None: what they say of themselves is not known.
    """

    def __init__(self, brain: Brain, repository: Path | None) -> None:
        self._brain, self._repository = brain, repository
        self._known: dict[tuple[str, str], Listed] = {}
        self._names: tuple[tuple[str, ...], float] = ((), -_LIST_S)
        self._titles: dict[str, str] = {}
        self._making = asyncio.Lock()

    async def get(
        self, caller: Caller, name: str, version: str | None, action: str, deadline: Deadline | None = None
    ) -> Listed:
        """Return a model that this caller may ask.

        Args:
            deadline: Until when a Triton that is gone is waited for.

        Raises:
            Refusal: it may not, there is none, or no Triton says so.
        """
        model = await self._brain.model(caller, name, version, action, deadline)
        known = self._known.get((name, model.version))
        if known is not None and (known.signature.model is model or _same(known.signature.model, model)):
            return known
        async with self._making:  # a type is made once, however many ask for it first
            known = self._known.get((name, model.version))
            if known is None or not _same(known.signature.model, model):
                known = await asyncio.to_thread(self._made, model)
                while len(self._known) >= _MOST_KEPT:
                    self._known.pop(next(iter(self._known)))
                self._known[name, model.version] = known
        return known

    async def all(self, caller: Caller) -> list[Listed]:
        """Return the models that this caller may read, by name; the steps of another one's ensemble are left out.

        Raises:
            Refusal: no Triton says which there are.
        """
        found = []
        for name in await self.names():
            if caller.may("read", name):
                try:
                    found.append(await self.get(caller, name, None, "read"))
                except ModelConfigError:
                    continue
        steps = {step for listed in found for step in _steps(listed)}
        return [listed for listed in found if listed.signature.model.name not in steps]

    async def names(self) -> Sequence[str]:
        """Return the names of all models that are served.

        Raises:
            Refusal: no Triton says which there are.
        """
        names, at = self._names
        if time.monotonic() - at <= _LIST_S:
            return names
        try:
            deadline = asyncio.get_running_loop().time() + _ASK_S
            async with await self._brain.endpoints.get("/v2/models/stats", deadline) as answer:
                said: dict[str, Any] = json.loads(await answer.read())
            names = tuple(sorted({str(each["name"]) for each in said["model_stats"]}))
        except (UpstreamError, ValueError, KeyError, TypeError) as error:
            raise NO_MODELS("no server says which models there are", retry_after_s=1.0) from error
        self._names = names, time.monotonic()
        return names

    def _made(self, model: Model) -> Listed:
        release = releases.find(self._repository, model.name, model.version)
        declaration = release.entities.declaration if release.entities else None
        return Listed(signatures.of(model, self._title(model.name), declaration), release)

    def _title(self, name: str) -> str:
        """Return what the names of a model's types begin with; of two that would be the same one has a number."""
        if name not in self._titles:
            wanted, taken = signatures.title(name), {*self._titles.values()}
            numbered = (f"{wanted}{number}" for number in itertools.count(2))
            self._titles[name] = next(title for title in itertools.chain([wanted], numbered) if title not in taken)
        return self._titles[name]


def _same(one: Model, other: Model) -> bool:
    return one.version == other.version and one.config == other.config


def _steps(listed: Listed) -> list[str]:
    """Return the models behind one: an ensemble's steps; its network also where one process runs them all."""
    ensemble = listed.signature.model.config.get("ensemble_scheduling") or {}
    steps = [str(step["model_name"]) for step in ensemble.get("step", ())]
    manifest = listed.release.manifest
    if manifest and listed.signature.model.name in manifest.models[1:]:
        steps.append(manifest.models[0])
    return steps
