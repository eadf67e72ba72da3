"""`python -m gateway up`: the gateway, the process that writes its record down, and if asked a Triton behind it."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gateway.errors import SettingsError
from gateway.running import kept, triton, workers
from gateway.settings import sources
from gateway.settings.schema import Settings
from store.database import Database
from store.errors import DatabaseGoneError, SchemaError
from store.migrations import migrating

_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_STOP_S = 5.0  # for what it has begun to write; killed it loses nothing
_STORE_S = 5.0  # for the store to answer; requests are answered without it


def run(options: argparse.Namespace) -> int:
    """Answer requests until a signal ends it."""
    for name in ("host", "port", "workers"):
        if (value := getattr(options, name)) is not None:
            os.environ[sources.variable(f"listen.{name}")] = str(value)
    if options.env_file:
        os.environ[sources.ENV_FILE_VARIABLE] = str(options.env_file.resolve())
    if options.triton and not options.with_triton:
        raise SettingsError(f"{options.triton[0]} is for Triton, which is not started", hint="--with-triton, before --")
    settings = sources.read().settings
    check(settings)
    with ExitStack() as stack:
        listener = stack.enter_context(
            workers.bound(settings)
        )  # if it is taken that is said now, not after Triton's start
        if options.with_triton:
            os.environ[sources.variable("triton.endpoints")] = stack.enter_context(triton.beside(options.triton))
            settings = sources.read().settings
        prepare(settings)
        if settings.record.enabled and not options.without_writer:
            stack.enter_context(_writer(settings))
        if settings.listen.workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-metrics-"))
            os.environ.setdefault(_METRICS, folder)
        code = workers.serve(settings, listener)
    print("Stopped.", flush=True)
    return code


def check(settings: Settings) -> None:
    """See that the settings can hold together.

    Raises:
        SettingsError: they cannot.
    """
    shared = not settings.quota.storage.get_secret_value().startswith("memory:")
    if settings.listen.workers > 1 and not shared:
        raise SettingsError(
            f"{settings.listen.workers} workers would each count quotas by themselves",
            note="a key would have its quota as many times, and an Idempotency-Key hold in one of them",
            hint=f"{sources.variable('quota.storage')}=redis://HOST:6379",
        )
    if (settings.listen.certificate is None) != (settings.listen.key is None):
        raise SettingsError("listen.certificate and listen.key belong together", note="one of them is not set")
    if not settings.keys.required and settings.listen.host not in ("127.0.0.1", "::1", "localhost"):
        raise SettingsError(
            f"keys.required is false, and {settings.listen.host} is reached from elsewhere",
            hint="ask for keys, or listen on 127.0.0.1",
        )


def prepare(settings: Settings) -> None:
    """Make the tables of a store that has none, before anybody reads keys from it; one that is gone is gone."""

    async def main() -> None:
        url = settings.store.url.get_secret_value() if settings.store.url else None
        async with Database(url, connections=1, wait_s=_STORE_S) as database:
            await migrating.prepare(database)

    try:
        asyncio.run(main())
    except (DatabaseGoneError, SchemaError) as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)


@contextmanager
def _writer(settings: Settings) -> Iterator[None]:
    """Keep `python -m store write` running."""
    command = [sys.executable, "-m", "store", "write", "--spool", str(settings.record.spool)]
    command += ["--payloads", settings.record.payloads] if settings.record.payloads else []
    environment = dict(os.environ)
    if settings.store.url:
        environment["STORE_URL"] = settings.store.url.get_secret_value()  # not in the process list
    with kept.beside(command, environment, _STOP_S):
        yield
