"""The processes that answer, on one port: one is this process, several are kept running beside it.

python -m gateway.running.workers FD      one of several, on a socket that it was given
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FrameType

import uvicorn

from contracts.running.record import asked_at, in_url
from gateway import app
from gateway.app import Gateway
from gateway.errors import StartError
from gateway.running.connections import Guard, guarded
from gateway.running.draining import CLOSE_S, Overdue, Server
from gateway.running.kept import Kept
from gateway.seen import logs
from gateway.settings import levels, sources
from gateway.settings.schema import Settings

_BACKLOG = 2048
_NOTICE_S = 2.0  # in which whoever balances sees that it is not ready


def bound(settings: Settings) -> socket.socket:
    """Return a socket that has the port; whoever asks there is refused until `serve` does.

    Raises:
        StartError: it cannot be had.
    """
    listen = settings.listen
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
        made = socket.socket(family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(address)
    except OSError as error:
        raise _taken(settings, error) from error
    return made


def serve(settings: Settings, listener: socket.socket) -> int:
    """Answer requests until a signal ends it; return the exit code.

    Args:
        listener: As `bound` makes it.

    Raises:
        StartError: somebody else listens there since.
        SettingsError: the settings contradict each other.
    """
    gateway = app.build(settings)  # before anything is started: what is wrong with the settings is said here
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _taken(settings, error) from error
    print("\n".join(_told(settings, *listener.getsockname()[:2])), flush=True)
    return _alone(gateway, listener) if settings.listen.workers == 1 else _several(settings, listener)


def _taken(settings: Settings, error: OSError) -> StartError:
    host, port = settings.listen.host, settings.listen.port
    return StartError(f"cannot listen on {host}:{port}: {error.strerror}", hint="another one: --port, --host")


def _told(settings: Settings, host: str, port: int) -> Iterator[str]:
    """Say where it answers, and how it is asked."""
    scheme = "https" if settings.listen.certificate else "http"
    asked = f"{scheme}://{asked_at(host)}:{port}/v1/models"
    yield f"Answering at {scheme}://{in_url(host)}:{port}   (stop: Ctrl-C)"
    if settings.keys.required:
        yield "Next, in another terminal: python -m gateway keys create NAME, which shows a KEY, and with it"
        yield f"  curl {asked} -H 'Authorization: Bearer KEY'"
    else:
        yield "warning: no key is asked for: whoever reaches it may ask"
        yield f"Next, in another terminal: curl {asked}"


def _alone(gateway: Gateway, listener: socket.socket) -> int:
    settings = gateway.settings
    logs.configure(levels=levels.read(settings.environment, settings.seen.log_level), style=settings.seen.log_format)
    limits, listen = settings.limits, settings.listen
    guard = Guard(limits.connections, header_s=limits.header_timeout_s, body_s=limits.body_timeout_s)
    config = uvicorn.Config(
        gateway,
        http=guarded(guard),
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(listen.proxies),
        forwarded_allow_ips=[*listen.proxies],
        timeout_keep_alive=int(limits.idle_timeout_s),
        backlog=_BACKLOG,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
    )

    def drain(*, over: bool = False) -> None:
        if gateway.doors is not None:
            readiness = gateway.doors.brain.readiness
            readiness.draining, readiness.over = True, over

    notice_s = min(_NOTICE_S, limits.drain_s)
    with Overdue() as overdue, suppress(KeyboardInterrupt):
        server = Server(
            *(config, guard, drain, partial(drain, over=True), overdue), notice_s=notice_s, drain_s=limits.drain_s
        )
        server.run([listener])
    return 0 if server.started else 1


def _several(settings: Settings, listener: socket.socket) -> int:
    listener.set_inheritable(True)
    command = [sys.executable, "-m", "gateway.running.workers", str(listener.fileno())]
    kept = [Kept(command, dict(os.environ), [listener.fileno()], _forget) for _ in range(settings.listen.workers)]
    ended = threading.Event()

    def end(number: int, _: FrameType | None) -> None:
        for worker in kept:
            worker.signal(signal.SIGTERM)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    started = []
    for worker in kept:
        if ended.is_set():
            break
        worker.start()
        started.append(worker)
    if ended.is_set() and started:  # the signal may have come while the last one was being started
        started[-1].signal(signal.SIGTERM)
    while not ended.wait(1.0):
        pass
    until = time.monotonic() + settings.limits.drain_s + _NOTICE_S + CLOSE_S + 3  # a little more than it takes itself
    while any(worker.pid for worker in started) and time.monotonic() < until:
        time.sleep(0.05)  # a second signal is passed on meanwhile
    for worker in started:
        worker.stop(0)
    return 0


def _forget(pid: int) -> None:
    """Take what was under way in a worker that has ended out of the metrics."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _worker(descriptor: int) -> int:
    settings = sources.read().settings
    listener = socket.socket(fileno=descriptor)
    return _alone(app.build(settings), listener)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(_worker(int(sys.argv[1])))
