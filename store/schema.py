"""The tables of the store. Times are nanoseconds since 1970, UTC; what makes them is in migrations/.

A record of a request is never changed, only removed. Nothing refers to a prediction by a foreign key: labels and
events may come before it, after it, or for one that was never there.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Double, Index, Integer, MetaData, SmallInteger, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ID, NAME, TEXT = 64, 200, 1000  # lengths in characters
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Base(DeclarativeBase):
    """All of them; constraints have names, by which migrations find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Key(Base):
    """A caller's key. Its secret is nowhere, only the SHA-256 of it, in hex: it is random, 192 bits."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME))
    hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(Json)
    limits: Mapped[dict[str, Any]] = mapped_column(Json)
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int | None] = mapped_column(BigInteger)
    revoked: Mapped[int | None] = mapped_column(BigInteger)
    previous_hash: Mapped[str | None] = mapped_column(String(64))
    previous_until: Mapped[int | None] = mapped_column(BigInteger)


class Usage(Base):
    """What a key has used of a model on a day, UTC. The key "" is nobody's."""

    __tablename__ = "usage"
    key: Mapped[str] = mapped_column(String(ID), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    model: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    failed: Mapped[int] = mapped_column(BigInteger)


class Prediction(Base):
    """A request and its answer."""

    __tablename__ = "predictions"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    time: Mapped[int] = mapped_column(BigInteger)
    door: Mapped[str] = mapped_column(String(ID))
    key: Mapped[str | None] = mapped_column(String(ID))
    model: Mapped[str] = mapped_column(String(NAME))
    release: Mapped[str | None] = mapped_column(String(NAME))
    arm: Mapped[str] = mapped_column(String(NAME))
    rows: Mapped[int] = mapped_column(Integer)
    latency_ms: Mapped[float] = mapped_column(Double)
    triton_ms: Mapped[float | None] = mapped_column(Double)
    status: Mapped[int] = mapped_column(SmallInteger)
    inputs: Mapped[dict[str, Any] | None] = mapped_column(Json)
    outputs: Mapped[dict[str, Any] | None] = mapped_column(Json)
    payload: Mapped[str | None] = mapped_column(String(TEXT))
    caller_id: Mapped[str | None] = mapped_column(String(NAME))  # what the caller calls it; several may have one

    __table_args__ = (
        Index(None, "time", "id"),
        Index(None, "model", "time", "id"),
        Index(None, "key", "time", "id"),
    )


class Label(Base):
    """What somebody has said was true for a request; a correction is another one, and the newest by `time` holds."""

    __tablename__ = "labels"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    request: Mapped[str] = mapped_column(String(ID))
    name: Mapped[str] = mapped_column(String(NAME))
    value: Mapped[Any | None] = mapped_column(Json)  # null withdraws
    time: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str | None] = mapped_column(String(ID))

    __table_args__ = (Index(None, "request", "name", "time"), Index(None, "received"), Index(None, "key"))


class Event(Base):
    """Something that happened: a conversion after a request, a feature of an entity."""

    __tablename__ = "events"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME))
    time: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[int] = mapped_column(BigInteger)
    request: Mapped[str | None] = mapped_column(String(ID))
    entity: Mapped[str | None] = mapped_column(String(NAME))
    value: Mapped[float | None] = mapped_column(Double)
    data: Mapped[dict[str, Any] | None] = mapped_column(Json)
    key: Mapped[str | None] = mapped_column(String(ID))

    __table_args__ = (
        Index(None, "request"),
        Index(None, "name", "time", "id"),
        Index(None, "entity", "name", "time"),
        Index(None, "time"),
        Index(None, "key"),
    )


class Release(Base):
    """A release of a model that has served."""

    __tablename__ = "releases"
    model: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    release: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    digest: Mapped[str | None] = mapped_column(String(TEXT))
    first_seen: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[dict[str, Any] | None] = mapped_column(Json)


class Verdict(Base):
    """What a judge found of a release, by which evidence, against which other."""

    __tablename__ = "verdicts"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    time: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str] = mapped_column(String(NAME))
    release: Mapped[str] = mapped_column(String(NAME))
    against: Mapped[str | None] = mapped_column(String(NAME))
    judge: Mapped[str] = mapped_column(String(NAME))
    passed: Mapped[bool] = mapped_column(Boolean)
    evidence: Mapped[dict[str, Any] | None] = mapped_column(Json)

    __table_args__ = (Index(None, "model", "release", "time"),)


class Erasure(Base):
    """What was erased, by a hash of its name, so that no record of it that is under way comes back."""

    __tablename__ = "erasures"
    subject: Mapped[str] = mapped_column(String(ID), primary_key=True)
    until: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[int] = mapped_column(BigInteger)


class Place(Base):
    """How far a segment of a spool is written; changed in the transaction that writes, so that none is there twice."""

    __tablename__ = "places"
    segment: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    written: Mapped[int] = mapped_column(BigInteger)
    duplicates: Mapped[int] = mapped_column(BigInteger)
    refused: Mapped[int] = mapped_column(BigInteger)
