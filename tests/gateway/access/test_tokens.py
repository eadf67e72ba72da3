"""Tokens of an issuer: what holds, what does not, and an issuer that is gone or changes its keys."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.access import issuer as issuers
from gateway.access.access import Access
from gateway.access.issuer import Issuer
from gateway.access.quotas import Quotas
from gateway.access.ring import Ring
from gateway.access.tokens import Tokens
from gateway.errors import Refusal, SettingsError
from gateway.limits import Limits
from gateway.settings.schema import Oidc


@lru_cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    """Made once: it takes a while."""
    return rsa.generate_private_key(65537, 2048)


class Site:
    """An OpenID issuer: a discovery document and keys, over HTTP."""

    def __init__(self) -> None:
        self.keys = {"one": rsa_key(0)}
        self.asked: list[str] = []
        self.is_gone = False
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                found = site.answers().get(self.path)
                self.send_response(503 if site.is_gone else 200 if found else 404)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answers(self) -> dict[str, Any]:
        keys = [
            {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": name, "use": "sig"}
            for name, key in self.keys.items()
        ]
        discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        return {"/.well-known/openid-configuration": discovery, "/jwks": {"keys": keys}}

    def token(self, *, key: Any = None, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> str:
        told = {
            "iss": self.url, "sub": "someone", "aud": "models", "exp": time.time() + 60,
            "scope": "openid boats*:infer profile", **claims,
        }  # fmt: skip
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, key or self.keys["one"], algorithm, headers={"kid": kid} if kid else {})


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()


async def asked(site: Site, *tokens: str, oidc: Oidc | None = None) -> list[Any]:
    """What becomes of each: a Caller, or why it is refused."""
    tokens_of = Tokens(
        Issuer(site.url, 300), oidc or Oidc(issuer=site.url, audience="models"), Limits(requests_day="5")
    )
    access = Access(Ring(_nobody), Quotas(), tokens_of)
    found: list[Any] = []
    for token in tokens:
        try:
            found.append(await access.check(f"Bearer {token}"))
        except Refusal as refusal:
            assert refusal.status == 401
            found.append(refusal.detail)
    return found


async def _nobody() -> list[Any]:
    return []


def test_a_token_is_a_caller_with_the_scopes_of_its_claim_and_the_issuer_is_asked_once(site: Site) -> None:
    first, again, other = asyncio.run(asked(site, site.token(), site.token(), site.token(sub="else", scope=["*:read"])))
    assert first == again and first.name == "someone" and first.limits.requests_day == "5"
    assert [str(scope) for scope in first.scopes] == ["boats*:infer"]  # openid and profile are not ours
    assert first.key_id.startswith("oidc:") and first.key_id != other.key_id and other.may("read", "x")
    assert site.asked == ["/.well-known/openid-configuration", "/jwks"]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1_700_000_000},
        {"exp": None},
        {"aud": "others"},
        {"aud": None},
        {"iss": "https://login.example.org"},
        {"sub": None},
        {"nbf": 4_000_000_000},
        {"kid": "unknown"},
        {"exp": "soon"},
    ],
)
def test_a_token_that_is_over_or_meant_for_another_is_refused(claims: dict[str, Any], site: Site) -> None:
    [why] = asyncio.run(asked(site, site.token(**claims)))
    assert isinstance(why, str)


def test_a_token_that_somebody_else_signed_is_refused(site: Site) -> None:
    public = site.keys["one"].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    head, body, signature = site.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    more = base64.urlsafe_b64encode(json.dumps({**claims, "scope": "*:*"}).encode()).rstrip(b"=").decode()
    none = jwt.encode(claims, None, "none", headers={"kid": "one"})
    # With the public key as the secret of an HMAC: by hand, as no library signs so any more.
    forged_head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').rstrip(b"=").decode()
    mac = hmac.new(public, f"{forged_head}.{body}".encode(), hashlib.sha256).digest()
    confused = f"{forged_head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    other = site.token(key=rsa_key(1))
    curve = site.token(key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")
    wrong = [
        f"{head}.{more}.{signature}",
        none,
        confused,
        other,
        curve,
        f"{head}.{body}.",
        "a.b.c",
        "..",
        "x" * 9000 + ".b.c",
    ]
    assert all(isinstance(found, str) for found in asyncio.run(asked(site, *wrong)))


def test_unknown_keys_do_not_have_the_issuer_asked_for_each(site: Site) -> None:
    asyncio.run(asked(site, *(site.token(kid=f"made up {number}") for number in range(50))))
    assert len(site.asked) == 2


def test_an_issuer_that_is_gone_keeps_its_keys_and_one_that_changes_them_is_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "_AT_MOST_EVERY_S", 0.0)

    async def main() -> None:
        tokens = Tokens(Issuer(site.url, 0.0), Oidc(issuer=site.url, audience="models"), Limits())
        assert not isinstance(await tokens.caller_of(site.token()), str)
        site.is_gone = True
        await asyncio.sleep(0.05)
        for number in range(3):
            assert not isinstance(await tokens.caller_of(site.token(sub=f"n{number}")), str)
            await asyncio.sleep(0.1)
        site.is_gone = False
        site.keys["two"] = rsa_key(1)
        assert not isinstance(await tokens.caller_of(site.token(key=site.keys["two"], kid="two")), str)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("https://x.org", None, ("RS256",)), "needs oidc.audience"),
        (("https://x.org", "models", ("RS256", "HS256")), "has HS256"),
        (("https://x.org", "models", ("none",)), "has none"),
        (("http://x.org", "models", ("RS256",)), "must be https://"),
        (("http://localhost.evil.org", "models", ("RS256",)), "must be https://"),
    ],
)
def test_settings_with_which_others_could_make_tokens_are_refused(given: tuple[Any, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        issuers.check(*given)
