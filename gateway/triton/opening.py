"""How a connection to a Triton is opened: soon, or nobody is there."""

import asyncio
import errno
from collections.abc import Callable
from typing import TypeVar

from gateway.errors import FullError, GoneError, LateError
from gateway.triton.address import Address

CONNECT_S = 2.0
STALLED_S = 0.25  # later than this no timer rings in a process that has time for it
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}  # files, memory, ports
Protocol = TypeVar("Protocol", bound=asyncio.Protocol)


async def opened(
    make: Callable[[], Protocol], address: Address, deadline: float, connect_s: float = CONNECT_S
) -> Protocol:
    """Connect; return the protocol that `make` makes.

    Args:
        deadline: On the loop's clock.
        connect_s: For a Triton that is there.

    Raises:
        GoneError: nobody is there.
        FullError: this process can open no more.
        LateError: the deadline passed first.
    """
    loop = asyncio.get_running_loop()
    while True:
        own = min(deadline, loop.time() + connect_s)
        try:
            async with asyncio.timeout_at(own):
                return await _connected(loop, make, address)
        except TimeoutError as error:
            if loop.time() >= deadline:
                raise LateError(f"no connection to the Triton at {address} before the deadline") from error
            if loop.time() - own < STALLED_S:
                gone = GoneError(f"no connection to the Triton at {address} in {connect_s:g} s")
                gone.was_silence = True
                raise gone from error
            # Else this process stood still meanwhile, which says nothing of the Triton: once more.
        except OSError as error:
            if error.errno in _OURS:
                raise FullError(f"no connection to the Triton at {address}: {error.strerror} here") from error
            raise GoneError(f"the Triton at {address} cannot be reached: {error}") from error


async def _connected(loop: asyncio.AbstractEventLoop, make: Callable[[], Protocol], address: Address) -> Protocol:
    if address.path:
        _, protocol = await loop.create_unix_connection(make, address.path)
    else:
        _, protocol = await loop.create_connection(make, address.host, address.port)
    return protocol
