"""The keys of an OpenID issuer (JWKS), fetched by its discovery document and kept: a token is checked without asking.

An issuer that cannot be reached keeps the keys that it had. A token of a key that is not known has them fetched anew,
but not more often than every ten seconds, whatever is sent.
"""

import asyncio
import logging
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt

from gateway.errors import SettingsError

_AT_MOST_EVERY_S = 10.0
_MOST_BYTES = 1 << 20
_WAIT = aiohttp.ClientTimeout(total=5)
log = logging.getLogger("gateway.access")


class Issuer:
    """An issuer and its keys.

    Args:
        url: As its tokens name it in `iss`.
        refresh_s: After how long its keys are fetched anew.
    """

    def __init__(self, url: str, refresh_s: float) -> None:
        self.url, self._refresh_s = url, refresh_s
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = -float("inf")
        self._lock = asyncio.Lock()
        self._later: asyncio.Task[None] | None = None

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key that a token names; None: the issuer has none of that name, or cannot be asked."""
        now = time.monotonic()
        if (found := self._named(key_id)) is not None:
            if now - self._fetched_at > self._refresh_s and (self._later is None or self._later.done()):
                self._later = asyncio.create_task(self._fetch())  # meanwhile those that are known hold
            return found
        await self._fetch()
        return self._named(key_id)

    async def aclose(self) -> None:
        """End what goes on in the background."""
        if self._later is not None:
            self._later.cancel()

    def _named(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:  # one that names none is meant where there is one
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        async with self._lock:
            if time.monotonic() - self._asked_at < _AT_MOST_EVERY_S:
                return
            self._asked_at = time.monotonic()
            try:
                self._keys = await self._read()
                self._fetched_at = self._asked_at
            except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
                log.warning("the issuer's keys cannot be read, those known stay: %s", type(error).__name__)

    async def _read(self) -> dict[str | None, jwt.PyJWK]:
        async with aiohttp.ClientSession(timeout=_WAIT, trust_env=True) as session:
            about = await _json(session, f"{self.url.rstrip('/')}/.well-known/openid-configuration")
            if about["issuer"] != self.url:
                raise ValueError(f"it calls itself {about['issuer']!r}")
            keys = jwt.PyJWKSet.from_dict(await _json(session, about["jwks_uri"])).keys
        return {key.key_id: key for key in keys if key.public_key_use in (None, "sig")}


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as response:
        response.raise_for_status()
        if response.content_length is not None and response.content_length > _MOST_BYTES:
            raise ValueError("it is too large")
        return dict(await response.json(content_type=None))


def check(url: str, audience: str | None, algorithms: tuple[str, ...]) -> None:
    """Check what an operator says of an issuer.

    Raises:
        SettingsError: tokens could be made by others, or be meant for others.
    """
    if audience is None:
        raise SettingsError(
            "oidc.issuer needs oidc.audience", note="else a token that is meant for another service would be taken"
        )
    if weak := [name for name in algorithms if name.startswith("HS") or name.lower() == "none"]:
        raise SettingsError(
            f"oidc.algorithms has {weak[0]}", note="with it whoever reads the issuer's public keys could sign"
        )
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        raise SettingsError(f"oidc.issuer must be https://, and is {url}", note="else its keys could be another's")
