"""Servers that nobody is at, for tests of what a client does with them."""

from collections.abc import Callable

from clients.core.servers import Server, Servers, Slot
from clients.settings import Address, Retry


def servers(count: int = 1, watch: Callable[[Server], object] = lambda server: None) -> Servers:
    found = Servers([Address("grpc", "host", 8001 + i) for i in range(count)], Retry(), watch)
    for server in found.all:
        server.responded = True
    return found


def acquired(pool: Servers, model: str = "") -> Slot:
    return pool.acquire(Slot(model))


def take(pool: Servers, model: str = "") -> Slot | None:
    """A server for a request, if there is one now."""
    slot = acquired(pool, model)
    if pool.poll(slot):
        return slot
    pool.release(slot)
    return None
