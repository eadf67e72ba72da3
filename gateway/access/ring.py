"""The keys that count, in memory: read from the store again every two seconds, and kept where it is gone.

A key is `gk_<id>_<secret>`. The store has the SHA-256 of the whole, never the key. Who asks with an id that is not
there waits as long as one whose secret is wrong: both are compared.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.caller import Caller

_WRITTEN = re.compile(r"gk_([0-9a-f]{8})_[A-Za-z0-9_-]{32}")
_NOBODYS = hashlib.sha256(b"nobody has it").digest()
log = logging.getLogger("gateway.access")


@dataclass(frozen=True)
class Held:
    """A key as the gateway knows it.

    Attributes:
        caller: Whom it stands for.
        digest: SHA-256 of the key.
        expires: Unix seconds; None: it does not.
        before: SHA-256 of the key that it has taken the place of, and until when that still counts.
    """

    caller: Caller
    digest: bytes
    expires: float | None = None
    before: tuple[bytes, float] | None = None


Read = Callable[[], Awaitable[Sequence[Held]]]


class Ring:
    """Keys by id. Use it as an asynchronous context manager: it refreshes them meanwhile.

    Args:
        read: Reads all that are not revoked.
        refresh_s: After how long they are read again.
        on_failure: Told of each failure to read.
    """

    def __init__(self, read: Read, refresh_s: float = 2.0, on_failure: Callable[[], None] = lambda: None) -> None:
        self._read, self._refresh_s, self._on_failure = read, refresh_s, on_failure
        self._held: dict[str, Held] = {}
        self._task: asyncio.Task[None] | None = None
        self.read_at: float | None = None  # on the monotonic clock; None: never yet

    async def __aenter__(self) -> "Ring":
        await self.refresh()
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> bool:
        """Read the keys anew; those that are known stay where they cannot be read."""
        try:
            held = await self._read()
        except Exception as error:  # whatever a database, its driver or the network raises
            log.warning("the keys cannot be read, those last read stay: %s", type(error).__name__)
            self._on_failure()
            return False
        self._held = {str(each.caller.key_id): each for each in held}
        self.read_at = time.monotonic()
        return True

    def __len__(self) -> int:
        return len(self._held)

    def caller_of(self, key: str) -> Caller | str:
        """Return whom a key stands for, or in words why it stands for nobody."""
        written = _WRITTEN.fullmatch(key)
        held = self._held.get(written[1]) if written else None
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        is_own = hmac.compare_digest(digest, held.digest if held else _NOBODYS)
        before = held.before if held and held.before else (_NOBODYS, 0.0)
        was_own = hmac.compare_digest(digest, before[0])
        if held is None or not (is_own or was_own):
            return "the key is not known"
        now = time.time()
        if not is_own and now >= before[1]:
            return "the key was replaced by another, and its time is over"
        if held.expires is not None and now >= held.expires:
            return "the key has expired"
        return held.caller

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            await self.refresh()
