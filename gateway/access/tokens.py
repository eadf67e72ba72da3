"""Tokens of an OpenID issuer (JWT) as callers: signature, issuer, audience and time are checked, scopes are a claim's.

What was checked is kept until the token is over, at most a minute: a signature costs a tenth of a millisecond.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jwt

from gateway.access.issuer import Issuer
from gateway.access.scopes import ACTIONS, Scope
from gateway.caller import Caller
from gateway.errors import KeysError
from gateway.limits import Limits
from gateway.settings.schema import Oidc

_KEPT, _KEPT_S = 4096, 60.0
_MOST_CHARACTERS = 8192


class Tokens:
    """Checks tokens.

    Args:
        limits: Of every caller with a token.
    """

    def __init__(self, issuer: Issuer, oidc: Oidc, limits: Limits) -> None:
        self._issuer, self._oidc, self._limits = issuer, oidc, limits
        self._kept: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()

    async def caller_of(self, token: str) -> Caller | str:
        """Return whom a token stands for, or in words why it stands for nobody."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        kept = self._kept.get(digest)
        if kept is not None and time.time() < kept[1]:
            return kept[0]
        if len(token) > _MOST_CHARACTERS:
            return "the token is too long"
        try:
            head = jwt.get_unverified_header(token)
            key = await self._issuer.key(head.get("kid"))
            if key is None:
                return "the token's key is not one of its issuer's"
            claims = self._verified(token, key)
        except (jwt.PyJWTError, TypeError, ValueError) as error:  # TypeError: an algorithm of another kind of key
            return f"the token does not hold: {error}"
        caller = self._caller(claims)
        self._keep(digest, caller, min(float(claims["exp"]) + self._oidc.leeway_s, time.time() + _KEPT_S))
        return caller

    def _verified(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        return jwt.decode(
            token,
            key.key,
            algorithms=[*self._oidc.algorithms],
            audience=self._oidc.audience,
            issuer=self._issuer.url,
            leeway=self._oidc.leeway_s,
            options={"require": ["exp", "iss", "sub", "aud"]},
        )

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        subject = str(claims["sub"])
        # The store has 64 characters for it, and a subject may have more, or any.
        key_id = "oidc:" + hashlib.sha256(f"{self._issuer.url}\n{subject}".encode()).hexdigest()[:16]
        scopes = _scopes(claims.get(self._oidc.scopes_claim))
        return Caller(key_id, subject[:128], scopes, self._limits, self._oidc.priority_most)

    def _keep(self, digest: bytes, caller: Caller, until: float) -> None:
        self._kept[digest] = caller, until
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


def _scopes(claim: object) -> tuple[Scope, ...]:
    """Take of a claim what is a scope of ours: an issuer's tokens have others, too (openid, profile)."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    found = []
    for word in words:
        if isinstance(word, str) and word.rpartition(":")[2] in ACTIONS:
            try:
                found.append(Scope.read(word))
            except KeysError:  # of another service that has the same word
                continue
    return tuple(found)
