"""The keys that count, in memory: read from the store again every two seconds, and kept where it is gone."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from gateway.access.scopes import read_all
from gateway.caller import Caller
from gateway.errors import KeysError
from gateway.limits import Limits
from store.errors import SchemaError
from store.keys import Key, authentic

PRIORITY = "priority_most"  # kept beside a key's limits
_URGENT = 2  # the most urgent class of a key that does not say: see gateway/brain/admission.py
log = logging.getLogger("gateway.access")
Read = Callable[[], Awaitable[Sequence[Key]]]


@dataclass(frozen=True)
class _Held:
    keys: Mapping[str, Key] = field(default_factory=dict)
    callers: Mapping[str, Caller] = field(default_factory=dict)


class Ring:
    """Keys by id. Use it as an asynchronous context manager: it refreshes them meanwhile.

    Args:
        read: Reads all keys.
        refresh_s: After how long they are read again.
        limits: Of keys that have none of their own.
        on_failure: Told of each failure to read.

    Attributes:
        read_at: When they were read last, on the monotonic clock; None: never yet.
    """

    def __init__(
        self,
        read: Read,
        refresh_s: float = 2.0,
        limits: Limits | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._read, self._refresh_s, self._on_failure = read, refresh_s, on_failure
        self._limits = limits or Limits()
        self._held = _Held()
        self._task: asyncio.Task[None] | None = None
        self.read_at: float | None = None

    async def __aenter__(self) -> Self:
        await self.refresh()
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def __len__(self) -> int:
        return len(self._held.keys)

    async def refresh(self) -> bool:
        """Read the keys anew; those that are known stay where they cannot be read."""
        try:
            keys = await self._read()
        except Exception as error:  # whatever a database, its driver or the network raises
            if self.read_at is None and isinstance(
                error, SchemaError
            ):  # a new store, which its writer is about to make
                log.info("there are no keys yet: %s", str(error).partition("\n")[0])
                return False
            log.warning("the keys cannot be read, those read last stay: %s", type(error).__name__)
            self._on_failure()
            return False
        if not keys and self._held.keys:  # a key is revoked, and never removed
            log.warning("the store has no keys any more: it is another one, and those read last stay")
            self._on_failure()
            return False
        callers = {key.id: caller for key in keys if (caller := self._caller(key)) is not None}
        self._held = _Held({key.id: key for key in keys if key.id in callers}, callers)
        self.read_at = time.monotonic()
        return True

    def caller_of(self, secret: str) -> Caller | None:
        """Return whom a key stands for; None: nobody. How long that takes tells nothing of the keys."""
        held = self._held
        key = authentic(held.keys, secret, time.time_ns())
        return None if key is None else held.callers[key.id]

    def _caller(self, key: Key) -> Caller | None:
        try:
            return caller_of(key, self._limits)
        except (KeysError, ValueError, TypeError) as error:  # of another version of the gateway, or by hand
            log.error("the key %s is not taken: %s", key.id, error)
            return None

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            await self.refresh()


def caller_of(key: Key, default: Limits | None = None) -> Caller:
    """Return whom a key of the store stands for.

    Args:
        default: The limits of one that has none.

    Raises:
        KeysError: its scopes or limits cannot be read.
    """
    kept = dict(key.limits)
    most = int(kept.pop(PRIORITY, _URGENT))
    limits = Limits.of(kept)
    return Caller(key.id, key.name, read_all(key.scopes), limits if limits.windows else default or limits, most)
