"""`python -m gateway keys`: keys of callers, in the store, or through a gateway's admin API from elsewhere.

With --url (or GATEWAY_ADMIN__URL) a gateway is asked, with the key in GATEWAY_ADMIN__KEY, whose scope is keys:admin;
else the store is, which only who may reach its database can.
"""

import argparse
import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from cli.tables import console, table
from gateway.access import ring, scopes
from gateway.access.administering import Shown, checked, described
from gateway.errors import KeysError
from gateway.moments import ns_of
from gateway.settings import sources
from gateway.settings.schema import Settings
from store.database import Database
from store.keys import Keys
from store.migrations import migrating

_PATH, _TIMEOUT_S = "/v1/admin/keys", 15
_SPAN = re.compile(r"(\d+)(s|m|h|d|w)")
_LONGEST_S = 100 * 365 * 86_400.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
T = TypeVar("T")


class Place(Protocol):
    """Where keys are administered."""

    def create(self, name: str, scopes: list[str], limits: dict[str, Any], expires: datetime | None) -> Shown: ...
    def list(self) -> list[Shown]: ...
    def revoke(self, key_id: str) -> Shown: ...
    def rotate(self, key_id: str, grace_s: float) -> Shown: ...


def run(options: argparse.Namespace) -> int:
    """Carry out what is asked."""
    settings = sources.read(options.env_file).settings
    url = options.url or settings.admin.url
    place: Place = _Remote(url, settings) if url else _Store(settings)
    return {"create": _create, "list": _list, "revoke": _revoke, "rotate": _rotate}[options.action](place, options)


def span_s(text: str) -> float:
    """Read a span of time, as in 90d or 12h."""
    if (found := _SPAN.fullmatch(text)) is None:
        raise argparse.ArgumentTypeError(f"{text} is no time, as 90d, 12h or 30m are")
    if (span := float(found[1]) * _UNITS[found[2]]) > _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text} is longer than a hundred years: leave it out for ever")
    return span


def _create(place: Place, options: argparse.Namespace) -> int:
    texts = options.scope or [*scopes.DEFAULT]
    limits = dict(_pair(text) for text in options.limit)
    if options.priority is not None:
        limits[ring.PRIORITY] = options.priority
    checked(texts, limits)  # before anything is asked, also of a gateway
    expires = datetime.now(UTC) + timedelta(seconds=options.expires) if options.expires else None
    made = place.create(options.name, texts, limits, expires)
    return _tell(made, options, "It is shown this once: keep it where secrets are kept.")


def _rotate(place: Place, options: argparse.Namespace) -> int:
    made = place.rotate(options.id, options.grace)
    return _tell(made, options, f"The one before is good until {made['rotated_until'] or 'now'}.")


def _tell(made: Shown, options: argparse.Namespace, then: str) -> int:
    if options.json:
        print(json.dumps(made))
        return 0
    print(made["secret"])
    print(
        f"Key {made['id']} of {made['name']}: {', '.join(made['scopes'])}, expires {made['expires'] or 'never'}. {then}"
    )
    return 0


def _list(place: Place, options: argparse.Namespace) -> int:
    found = place.list()
    if options.json:
        print(json.dumps({"keys": found}))
        return 0
    shown = table("id", "name", "state", "scopes", "limits", "expires", left=6)
    for key in found:
        limits = ", ".join(f"{name}={value}" for name, value in key["limits"].items())
        shown.add_row(key["id"], key["name"], key["state"], ", ".join(key["scopes"]), limits, key["expires"] or "")
    console().print(shown)
    print(f"{len(found)} keys. Another: python -m gateway keys create NAME --scope 'boats*:infer'")
    return 0


def _revoke(place: Place, options: argparse.Namespace) -> int:
    found = place.revoke(options.id)
    print(
        json.dumps(found)
        if options.json
        else f"Revoked {found['id']}, {found['name']}: within two seconds nobody takes it."
    )
    return 0


class _Store:
    """The store itself."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.store.url.get_secret_value() if settings.store.url else None

    def create(self, name: str, scopes: list[str], limits: dict[str, Any], expires: datetime | None) -> Shown:
        ns, kept = ns_of(expires) if expires else None, checked(scopes, limits)
        key, secret = self._done(lambda keys: keys.create(name, scopes, kept, ns))
        return {**described(key), "secret": secret}

    def list(self) -> list[Shown]:
        return [described(key) for key in self._done(lambda keys: keys.all())]

    def revoke(self, key_id: str) -> Shown:
        return described(self._done(lambda keys: keys.revoke(key_id)))

    def rotate(self, key_id: str, grace_s: float) -> Shown:
        key, secret = self._done(lambda keys: keys.rotate(key_id, grace_s))
        return {**described(key), "secret": secret}

    def _done(self, ask: Callable[[Keys], Awaitable[T]]) -> T:
        async def main() -> T:
            async with Database(self._url) as database:
                await migrating.prepare(database)
                return await ask(Keys(database))

        return asyncio.run(main())


class _Remote:
    """A gateway's admin API."""

    def __init__(self, url: str, settings: Settings) -> None:
        key = settings.admin.key
        if key is None:
            raise KeysError(
                f"{url} asks for a key with the scope keys:admin", hint=f"{sources.variable('admin.key')}=gk_… in .env"
            )
        self._url, self._key = url.rstrip("/"), key.get_secret_value()

    def create(self, name: str, scopes: list[str], limits: dict[str, Any], expires: datetime | None) -> Shown:
        content = {
            "name": name,
            "scopes": scopes,
            "limits": limits,
            "expires": expires.isoformat() if expires else None,
        }
        return self._asked("POST", "", content)

    def list(self) -> list[Shown]:
        return list(self._asked("GET", "")["keys"])

    def revoke(self, key_id: str) -> Shown:
        return self._asked("DELETE", f"/{quote(key_id, safe='')}")

    def rotate(self, key_id: str, grace_s: float) -> Shown:
        return self._asked("POST", f"/{quote(key_id, safe='')}/rotate", {"grace_s": grace_s})

    def _asked(self, method: str, path: str, content: Shown | None = None) -> Shown:
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self._url}{_PATH}{path}", body, headers, method=method)  # noqa: S310
        try:
            # Not on to another place: the key would go along.
            opener = urllib.request.build_opener(_Stay)
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            raise KeysError(f"{self._url}: {_told(error)}") from error
        except (OSError, ValueError, TypeError) as error:
            raise KeysError(f"{self._url} does not answer: {getattr(error, 'reason', None) or error}") from error


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _told(error: urllib.error.HTTPError) -> str:
    try:
        found = json.load(error)
        return f"{found['title']}: {found['detail']}"
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP status {error.code}, which is no answer of a gateway"


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise KeysError(f"{text!r} is no limit", hint="--limit requests_short=100/second")
    return name, value
