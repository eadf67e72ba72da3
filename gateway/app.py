"""The gateway as one ASGI application: its doors, made of the settings, opened and closed in order.

    async with build(settings) as gateway:
        ...                                 # what uvicorn is given

Every part is made here and given to those that need it; nothing else knows where settings are.
"""

import asyncio
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

from gateway.access import issuer
from gateway.access.access import Access
from gateway.access.issuer import Issuer
from gateway.access.quotas import Quotas
from gateway.access.ring import Ring
from gateway.access.tokens import Tokens
from gateway.authorize.app import PREFIX as AUTHORIZE
from gateway.authorize.app import Authorize
from gateway.brain.admission import Room
from gateway.brain.breaker import Rule
from gateway.brain.decide import Brain, Rules
from gateway.brain.endpoints import Endpoints
from gateway.errors import Refusal
from gateway.page.page import Page
from gateway.raw import replies
from gateway.raw.app import RawDoor
from gateway.raw.body import Limits
from gateway.raw.headers import Given
from gateway.seen.metrics import CONTENT_TYPE, Metrics
from gateway.seen.traces import Traces
from gateway.seen.watching import Seen
from gateway.settings.schema import Settings
from gateway.triton.address import Address
from gateway.triton.upstream import Upstream
from gateway.typed import door, idempotency
from gateway.typed.idempotency import InRedis
from gateway.typed.known.catalog import Catalog
from gateway.typed.parts import Parts
from store.database import Database
from store.keys import Keys
from store.payloads.samples import Samples
from store.spool import Spool

_REST_S = 3600.0  # between two looks at how old the spool's segment is
Scope = MutableMapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@dataclass
class Doors:
    """What answers, once it is open."""

    brain: Brain
    seen: Seen
    raw: RawDoor
    authorize: Authorize
    typed: Any
    page: Page | None


class Gateway:
    """An ASGI application. It is opened by `async with`, or by the server's lifespan.

    Attributes:
        doors: None: it is not open.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.doors: Doors | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self.doors = await _open(self.settings, self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.doors = None
        await self._stack.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give a request to the door that it is for."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        doors = self.doors
        if doors is None or scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith("/v2"):
            await doors.raw(scope, receive, send)
        elif path.startswith(AUTHORIZE.decode()):
            await doors.authorize(scope, receive, send)
        elif path == "/metrics":
            await _metrics(doors, scope, send)
        elif path in ("/livez", "/readyz"):
            await _health(doors, path, send)
        elif doors.page is not None and doors.page.has(path):
            await doors.page(scope, receive, send)
        else:
            await doors.typed(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.__aenter__()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.__aexit__()
        await send({"type": "lifespan.shutdown.complete"})


def build(settings: Settings) -> Gateway:
    """Make the gateway of its settings; nothing is opened yet.

    Raises:
        SettingsError: they contradict each other.
    """
    if settings.oidc.issuer:
        issuer.check(settings.oidc.issuer, settings.oidc.audience, settings.oidc.algorithms)
    return Gateway(settings)


async def _open(settings: Settings, stack: AsyncExitStack) -> Doors:
    limits = settings.limits
    traces = Traces(settings.seen.otlp_endpoint, settings.seen.trace_share) if settings.seen.otlp_endpoint else None
    seen = Seen(Metrics(most_keys=settings.seen.key_labels), traces, access_log=settings.seen.access_log)
    stack.callback(seen.close)
    url = settings.store.url.get_secret_value() if settings.store.url else None
    database = await stack.enter_async_context(Database(url, connections=2, wait_s=5.0))
    access = await _access(settings, database, seen.metrics, stack)
    behind = settings.triton
    made = [Upstream(Address.of(each), behind.connections, behind.connect_timeout_s) for each in behind.endpoints]
    endpoints = Endpoints(made, restart_s=behind.restart_s)
    stack.push_async_callback(endpoints.close)
    spool: Any = Spool(settings.record.spool) if settings.record.enabled else _Nothing()
    resting = asyncio.create_task(_rest(spool))
    stack.push_async_callback(_cancel, resting)
    rules = Rules(
        Room(limits.in_flight, limits.waiting),
        Rule(share=limits.breaker_share, pause_s=limits.breaker_s),
        limits.deadline_s,
        limits.deadline_most_s,
        behind.signatures_s,
    )
    record = settings.record
    samples = Samples(record.spool, record.payload_share, dict.fromkeys(record.payload_off, 0.0))
    brain = Brain(
        access=access,
        endpoints=endpoints,
        spool=spool,
        metrics=seen,
        rules=rules,
        samples=samples if record.enabled else None,
    )
    keys = Keys(database)
    parts = Parts(settings, access, brain, Catalog(brain, settings.triton.repository), _keeper(settings, stack), keys)
    raw = RawDoor(brain, Limits(most_bytes=limits.body_bytes, pause_s=limits.body_timeout_s))
    page = Page() if settings.page.enabled else None
    return Doors(brain, seen, raw, Authorize(brain), door.app(parts), page)


async def _access(settings: Settings, database: Database, metrics: Metrics, stack: AsyncExitStack) -> Access:
    refuse = settings.quota.when_gone == "refuse"
    storage = settings.quota.storage.get_secret_value()
    gone, stale = metrics.quota_storage_gone.inc, metrics.keys_stale.inc
    quotas = Quotas(storage, wait_s=settings.quota.wait_s, refuse_when_gone=refuse, on_gone=gone)
    ring = await stack.enter_async_context(Ring(Keys(database).all, settings.keys.refresh_s, settings.quota, stale))
    tokens = None
    if settings.oidc.issuer:
        known = Issuer(settings.oidc.issuer, settings.oidc.refresh_s)
        stack.push_async_callback(known.aclose)
        tokens = Tokens(known, settings.oidc, settings.quota)
    return Access(ring, quotas, tokens, required=settings.keys.required)


def _keeper(settings: Settings, stack: AsyncExitStack) -> idempotency.Keeper:
    own, storage = settings.idempotency, settings.quota.storage.get_secret_value()
    if urllib.parse.urlsplit(storage).scheme.startswith("redis"):
        shared = InRedis(storage, own.keep_s, settings.quota.wait_s)
        stack.push_async_callback(shared.aclose)
        return shared
    return idempotency.InMemory(own.keep_s, own.most_bytes)


async def _metrics(doors: Doors, scope: Scope, send: Send) -> None:
    """Answer /metrics, which name models and keys, to who has the scope metrics:admin."""
    try:
        access = doors.brain.access
        access.permit(await access.check(Given.of(scope["headers"]).authorization), "metrics", "admin")
    except Refusal as refusal:
        await replies.refuse(send, refusal)
        return
    await replies.reply(send, 200, doors.seen.metrics.text(), {"content-type": CONTENT_TYPE})


async def _health(doors: Doors, path: str, send: Send) -> None:
    """Answer /livez, while there is a process that answers, or /readyz, which tells whose fault it is if it is not."""
    if path == "/livez":
        await replies.reply(send, 200, b'{"gateway": "live"}', {})
        return
    report = await doors.brain.readiness.report()
    await replies.reply(send, report.status, report.json, {})


async def _rest(spool: Any) -> None:
    """End segments by their age where no request does."""
    while True:
        await asyncio.sleep(_REST_S)
        spool.rest()


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class _Nothing:
    """A spool where nothing is recorded."""

    lost = 0

    def put(self, record: dict[str, Any]) -> None:
        """Drop it."""

    def rest(self) -> None:
        """Do nothing."""
