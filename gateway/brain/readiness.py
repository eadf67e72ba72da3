"""Whether the gateway can answer: and if not, whether that is because of it or of the Tritons behind it."""

import asyncio
import json
import time
from dataclasses import dataclass, field

from gateway.brain.endpoints import Endpoints

FRESH_S = 1.0  # a look at the Tritons is as good for so long: whoever asks all the time asks them once a second
WAIT_S = 0.5  # for a look: one that is silent must not keep the others from being told to who waits for a second alone


@dataclass(frozen=True)
class Report:
    """What a probe is told. It names no addresses: anybody may ask."""

    gateway: str  # "ready" or "draining"
    servers: tuple[bool, ...]  # in the order of the settings: whether each is there

    @property
    def status(self) -> int:
        """Of HTTP."""
        return 200 if self.gateway == "ready" and any(self.servers) else 503

    @property
    def json(self) -> bytes:
        """As it is sent."""
        servers = ["up" if each else "down" for each in self.servers]
        triton = "up" if any(self.servers) else "down"
        return json.dumps({"gateway": self.gateway, "triton": triton, "servers": servers}).encode()


@dataclass
class Readiness:
    """Looks at the Tritons when it is asked to.

    Attributes:
        draining: The gateway is about to end: whoever sends it requests should send them elsewhere.
        over: It ends now: who still waits is told so.
    """

    endpoints: Endpoints
    draining: bool = False
    over: bool = False
    _looked: float = -FRESH_S
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def report(self) -> Report:
        """Say how it is."""
        async with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                await self.endpoints.look(WAIT_S)
                self._looked = time.monotonic()
        up = tuple(endpoint.is_up for endpoint in self.endpoints.all)
        return Report("draining" if self.draining else "ready", up)
