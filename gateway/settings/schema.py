"""What an operator may decide, each with its default and what it means: the keys of configs/settings.yaml.

A setting `limits.body_bytes` is `GATEWAY_LIMITS__BODY_BYTES` in the environment and in .env.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts import layout
from gateway.limits import Limits as OfCaller

PREFIX, DELIMITER = "GATEWAY_", "__"
OneOrMore = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda given: [one.strip() for one in given.split(",")] if isinstance(given, str) else given),
]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """Settings that belong together; a key that is not one of them is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(Section):
    """Where the gateway is reached."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535, description="0: one that is free, as the log says")
    workers: int = Field(default=1, ge=1, le=64, description="processes on one port; quotas then need Redis")
    proxies: OneOrMore = Field(
        default=(), description="addresses of proxies in front, whose X-Forwarded-For is believed"
    )
    certificate: Path | None = Field(default=None, description="PEM; TLS, with `key`")
    key: Path | None = Field(default=None, description="PEM; of the certificate")


class Triton(Section):
    """The servers behind the gateway."""

    endpoints: OneOrMore = Field(
        default=("http://127.0.0.1:8000",), description="several are balanced; unix:/path/of/a/socket is one, too"
    )
    connect_timeout_s: Seconds = 2.0
    connections: int = Field(
        default=256, ge=1, description="at once to each endpoint, of each worker; Triton 2.51 loses answers above 277"
    )
    signatures_s: Seconds = Field(default=1.0, description="after how long what is known of a model is asked for again")
    restart_s: float = Field(
        default=60.0, ge=0, le=3600, description="how long all may be gone so that requests wait; later they get 503"
    )
    repository: Path | None = Field(
        default_factory=layout.model_repository,
        description="where releases lie, for cards, golden requests and tables of entities; none: they are not shown",
    )


class Store(Section):
    """Where keys are, and what is recorded goes."""

    url: SecretStr | None = Field(default=None, description="of PostgreSQL or SQLite; none: artifacts/store/store.db")


class Keys(Section):
    """Keys of callers."""

    required: bool = Field(
        default=True, description="false: whoever reaches the gateway may ask; for a machine of one's own"
    )
    refresh_s: float = Field(default=2.0, gt=0, le=2.0, description="after how long a new or revoked key counts")


class Oidc(Section):
    """Tokens of an OpenID issuer, beside keys."""

    issuer: str | None = Field(default=None, description="as in https://login.example.org; none: tokens are not taken")
    audience: str | None = Field(default=None, description="that a token must be meant for")
    algorithms: OneOrMore = ("RS256", "ES256", "PS256", "EdDSA")
    scopes_claim: str = Field(default="scope", description="of the token: words, or a list, as boats*:infer *:read")
    refresh_s: Seconds = Field(default=300.0, description="after how long the issuer's keys are asked for again")
    leeway_s: float = Field(default=30.0, ge=0, le=300)
    priority_most: int = Field(
        default=2, ge=1, le=3, description="the most urgent class of a token; 1 is the most urgent"
    )


class Quota(OfCaller, Section):
    """How much a caller may ask, unless its key says otherwise; "100/second", of a day a number."""

    storage: SecretStr = Field(
        default=SecretStr("memory://"), description="redis://HOST:PORT counts for several processes"
    )
    when_gone: Literal["allow", "refuse"] = Field(
        default="allow", description="what becomes of requests without the storage"
    )
    wait_s: Seconds = Field(default=1.0, description="for the storage; longer is as if it were gone")


class Limits(Section):
    """What one request, and all together, may take."""

    body_bytes: int = Field(default=64 << 20, ge=1024, description="of a request of the raw door")
    typed_body_bytes: int = Field(
        default=32 << 20, ge=1024, description="of one of the typed door, which is held in memory"
    )
    header_timeout_s: Seconds = Field(default=10.0, description="for a request's head to arrive")
    body_timeout_s: Seconds = Field(default=30.0, description="for a request's body to get on by a part")
    idle_timeout_s: Seconds = Field(default=75.0, description="between the requests of a connection")
    connections: int = Field(default=2048, ge=1, description="open at once, of each worker")
    deadline_s: Seconds = Field(default=30.0, description="of a request that names none")
    deadline_most_s: Seconds = Field(default=300.0, description="that one may name")
    in_flight: int = Field(default=64, ge=1, description="requests at a model at once, of each worker")
    waiting: int = Field(default=256, ge=0, description="requests that wait for that, of each model and worker")
    breaker_share: Share = Field(
        default=0.5, description="of a model's last 50 requests that fail, so that it is left alone"
    )
    breaker_s: Seconds = Field(default=5.0, description="for how long")
    drain_s: float = Field(default=30.0, ge=0, description="for accepted requests, after SIGTERM")


class Idempotency(Section):
    """Answers kept for a retry with the same Idempotency-Key."""

    keep_s: Seconds = 3600.0
    most_bytes: int = Field(default=64 << 20, ge=0, description="of all that are kept in memory; the oldest go first")
    answer_bytes: int = Field(default=1 << 20, ge=0, description="of one; a larger one is not kept, and said not to be")


class Record(Section):
    """What is written down of each answer, by `python -m store write`."""

    enabled: bool = True
    spool: Path = Field(default_factory=lambda: layout.artifacts() / "store" / "spool")
    payload_share: Share = Field(default=0.0, description="of requests whose whole input is kept")
    payload_off: OneOrMore = Field(default=(), description="models of which none is")
    payloads: str | None = Field(
        default=None, description="where they go: a folder, s3://BUCKET/PREFIX; none: artifacts"
    )


class Seen(Section):
    """Logs, metrics, traces."""

    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        default=None, description="of the gateway's own lines; none: as configs/logging.yaml says of the environment"
    )
    log_format: Literal["json", "text"] = "json"
    access_log: bool = True
    otlp_endpoint: str | None = Field(default=None, description="OTLP over HTTP, as in http://localhost:4318/v1/traces")
    trace_share: Share = 0.01
    key_labels: int = Field(default=500, ge=0, description="keys with counters of their own; the rest count as one")


class Page(Section):
    """The page at /."""

    enabled: bool = True


class Admin(Section):
    """The gateway that `python -m gateway keys` asks, from elsewhere."""

    url: str | None = Field(
        default=None, description="as in https://gateway.example.org; none: the store is asked itself"
    )
    key: SecretStr | None = Field(default=None, description="one with the scope keys:admin")


class Settings(BaseSettings):
    """All of it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="forbid", frozen=True, env_ignore_empty=True
    )

    environment: str = Field(default="production", description="which of the file's `environments` holds")
    listen: Listen = Listen()
    triton: Triton = Field(default_factory=lambda: Triton())
    store: Store = Store()
    keys: Keys = Keys()
    oidc: Oidc = Oidc()
    quota: Quota = Quota()
    limits: Limits = Limits()
    idempotency: Idempotency = Idempotency()
    record: Record = Field(default_factory=lambda: Record())
    seen: Seen = Seen()
    page: Page = Page()
    admin: Admin = Admin()

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # of what it is given, one is taken
        cls, settings_cls: Any, init_settings: Any, **_: Any
    ) -> tuple[Any, ...]:
        """Take what is given alone: gateway/settings/sources.py reads the places, and notes which said what."""
        return (init_settings,)
