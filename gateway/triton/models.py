"""What models a Triton serves: their signatures, and the release that answers. Asked of Triton, kept for a second.

`deploy` gives every model of a release the release's number as its only version, so a model's version is its release.
"""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self
from urllib.parse import quote

from contracts.errors import ModelConfigError
from gateway.errors import BrokenError, LateError, UpstreamError
from gateway.triton.upstream import Answer

FRESH_S = 1.0
MOST_KEPT = 1000  # models, and names that are none: whoever makes names up takes no more memory
_LONGEST_S = 5.0  # to be asked

Fetch = Callable[[str, float], Awaitable[Answer]]  # GET a path before a deadline, of any Triton that is there


@dataclass(frozen=True)
class Tensor:
    """An input or an output.

    Attributes:
        datatype: "FP32", "BYTES".
        dims: Without the batch; -1 may be any size.
        optional: May be left out of a request.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """Read an input or output of a configuration."""
        kind = described["data_type"].removeprefix("TYPE_")
        dims = tuple(map(int, described["dims"]))
        return cls(described["name"], "BYTES" if kind == "STRING" else kind, dims, bool(described.get("optional")))


@dataclass(frozen=True)
class Model:
    """A model as Triton serves it.

    Attributes:
        version: That answers where a request names none.
        versions: All that are served.
        max_batch_size: 0: the first dimension is no batch.
        config: All of its configuration, as JSON.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    config: Mapping[str, Any]

    @classmethod
    def of(cls, metadata: Mapping[str, Any], config: Mapping[str, Any], version: str = "") -> Self:
        """Read what Triton says at `/v2/models/M` and `/v2/models/M/config`.

        Args:
            version: That was asked for, "" for the newest.

        Raises:
            ModelConfigError: they are not that.
        """
        try:
            versions = tuple(metadata["versions"])
            inputs, outputs = (tuple(map(Tensor.of, config.get(kind, ()))) for kind in ("input", "output"))
            version = version or max(versions, key=int)
            return cls(config["name"], version, versions, config.get("max_batch_size", 0), inputs, outputs, config)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelConfigError(f"Triton's description of a model cannot be read: {error}") from error

    @property
    def release(self) -> str:
        """The release that answers where a request names none."""
        return self.version

    @cached_property
    def input(self) -> Mapping[str, Tensor]:
        """Its inputs by name."""
        return {tensor.name: tensor for tensor in self.inputs}

    @cached_property
    def output(self) -> Mapping[str, Tensor]:
        """Its outputs by name."""
        return {tensor.name: tensor for tensor in self.outputs}


@dataclass
class _Kept:
    model: Model | None = None  # None: there is none of this name
    at: float = -FRESH_S
    asking: asyncio.Task[Model | None] | None = None


class Models:
    """Signatures, kept for a second; then asked again while the old one is still used."""

    def __init__(self, fetch: Fetch, fresh_s: float = FRESH_S) -> None:
        self._fetch = fetch
        self._fresh_s = fresh_s
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def get(self, name: str, version: str = "", until: float | None = None) -> Model | None:
        """Return the model; None if no Triton serves it, or not that version of it.

        A model that was known is served as it was while no Triton answers.

        Args:
            until: On the loop's clock: how long a caller waits; None: as long as it takes.

        Raises:
            UpstreamError: it was never asked for before, and no Triton answers, or not in time.
            ModelConfigError: what Triton says of it cannot be read.
        """
        if (kept := self._kept.get((name, version))) is None:
            kept = self._place(name, version)
        else:
            self._kept.move_to_end((name, version))
        if time.monotonic() - kept.at <= self._fresh_s:
            return kept.model
        if kept.asking is None:
            kept.asking = asyncio.create_task(self._ask(name, version, kept))
            kept.asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, waited for or not
        if kept.model is not None:
            return kept.model
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(kept.asking)
        except TimeoutError as error:
            raise LateError(f"no Triton said in time what {name} is") from error

    def _place(self, name: str, version: str) -> _Kept:
        if len(self._kept) >= MOST_KEPT:  # names that are none go first: whoever makes them up moves no model out
            oldest = next(iter(self._kept))
            del self._kept[next((key for key, kept in self._kept.items() if kept.model is None), oldest)]
        kept = self._kept[name, version] = _Kept()
        return kept

    async def _ask(self, name: str, version: str, kept: _Kept) -> Model | None:
        try:
            kept.model = await self._described(name, version)
            kept.at = time.monotonic()
        except (UpstreamError, ModelConfigError):
            if kept.model is None:
                raise
        finally:
            kept.asking = None
        return kept.model

    async def _described(self, name: str, version: str) -> Model | None:
        path = f"/v2/models/{quote(name, safe='')}{f'/versions/{version}' if version else ''}"
        metadata, config = await asyncio.gather(self._json(path), self._json(f"{path}/config"))
        if metadata is None or config is None:
            return None
        return Model.of(metadata, config, version)

    async def _json(self, path: str) -> dict[str, Any] | None:
        deadline = asyncio.get_running_loop().time() + _LONGEST_S
        async with await self._fetch(path, deadline) as answer:
            content = await answer.read()
            if answer.status in (400, 404):
                return None
            try:
                found = dict(json.loads(content))
            except (ValueError, TypeError) as error:
                raise ModelConfigError(f"Triton's description of a model is no JSON: {error}") from error
            if answer.status != 200:  # it is stopping, say
                raise BrokenError(f"the Triton does not describe its models: {found.get('error')}")
            return found
