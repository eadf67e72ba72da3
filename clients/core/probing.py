"""Look after a server that does not respond: when it is asked again, and when that ends."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from weakref import WeakMethod

from clients.core.attempts import Pause
from clients.core.request import Query
from clients.core.servers import Server, Servers

LIVE = Query("live")

# Between probes of one server, in seconds: while it does not respond, doubled each time.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


@dataclass(frozen=True)
class Probe:
    """Ask the server whether it is alive, reconnect if it is not, and come back with the answer."""


Probing = Generator[Probe | Pause, bool | None, None]


def probing(servers: Servers, server: Server) -> Probing:
    """Probe a server until it responds. As its steps name no client, they do not keep one alive."""
    pause_s = _FIRST_PAUSE_S
    while servers.needs_probe(server):
        alive = yield Probe()
        (servers.mark_up if alive else servers.mark_down)(server)
        yield Pause(_FIRST_PAUSE_S if alive else pause_s)
        pause_s = _FIRST_PAUSE_S if alive else min(2 * pause_s, _LONGEST_PAUSE_S)


def weakly(start: Callable[[Server], None]) -> Callable[[Server], None]:
    """Wrap a client's method, which its prober must not keep alive: dropped and not closed, it would probe for ever."""
    method = WeakMethod(start)

    def start_if_alive(server: Server) -> None:
        if alive := method():
            alive(server)

    return start_if_alive
