"""The tables

Revision: 0001, after nothing
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column, PrimaryKeyConstraint
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "erasures",
        Column("subject", sa.String(length=64), nullable=False),
        Column("until", sa.BigInteger(), nullable=False),
        Column("at", sa.BigInteger(), nullable=False),
        PrimaryKeyConstraint("subject", name=op.f("pk_erasures")),
    )
    op.create_table(
        "events",
        Column("id", sa.String(length=64), nullable=False),
        Column("name", sa.String(length=200), nullable=False),
        Column("time", sa.BigInteger(), nullable=False),
        Column("received", sa.BigInteger(), nullable=False),
        Column("request", sa.String(length=64), nullable=True),
        Column("entity", sa.String(length=200), nullable=True),
        Column("value", sa.Double(), nullable=True),
        Column("data", JSON, nullable=True),
        Column("key", sa.String(length=64), nullable=True),
        PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_entity_name_time"), "events", ["entity", "name", "time"])
    op.create_index(op.f("ix_events_key"), "events", ["key"])
    op.create_index(op.f("ix_events_name_time_id"), "events", ["name", "time", "id"])
    op.create_index(op.f("ix_events_request"), "events", ["request"])
    op.create_index(op.f("ix_events_time"), "events", ["time"])

    op.create_table(
        "keys",
        Column("id", sa.String(length=64), nullable=False),
        Column("name", sa.String(length=200), nullable=False),
        Column("hash", sa.String(length=64), nullable=False),
        Column("scopes", JSON, nullable=False),
        Column("limits", JSON, nullable=False),
        Column("created", sa.BigInteger(), nullable=False),
        Column("expires", sa.BigInteger(), nullable=True),
        Column("revoked", sa.BigInteger(), nullable=True),
        Column("previous_hash", sa.String(length=64), nullable=True),
        Column("previous_until", sa.BigInteger(), nullable=True),
        PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_table(
        "labels",
        Column("id", sa.String(length=64), nullable=False),
        Column("request", sa.String(length=64), nullable=False),
        Column("name", sa.String(length=200), nullable=False),
        Column("value", JSON, nullable=True),
        Column("time", sa.BigInteger(), nullable=False),
        Column("received", sa.BigInteger(), nullable=False),
        Column("key", sa.String(length=64), nullable=True),
        PrimaryKeyConstraint("id", name=op.f("pk_labels")),
    )
    op.create_index(op.f("ix_labels_key"), "labels", ["key"])
    op.create_index(op.f("ix_labels_received"), "labels", ["received"])
    op.create_index(op.f("ix_labels_request_name_time"), "labels", ["request", "name", "time"])

    op.create_table(
        "places",
        Column("segment", sa.String(length=200), nullable=False),
        Column("position", sa.BigInteger(), nullable=False),
        Column("written", sa.BigInteger(), nullable=False),
        Column("duplicates", sa.BigInteger(), nullable=False),
        Column("refused", sa.BigInteger(), nullable=False),
        PrimaryKeyConstraint("segment", name=op.f("pk_places")),
    )
    op.create_table(
        "predictions",
        Column("id", sa.String(length=64), nullable=False),
        Column("time", sa.BigInteger(), nullable=False),
        Column("door", sa.String(length=64), nullable=False),
        Column("key", sa.String(length=64), nullable=True),
        Column("model", sa.String(length=200), nullable=False),
        Column("release", sa.String(length=200), nullable=True),
        Column("arm", sa.String(length=200), nullable=False),
        Column("rows", sa.Integer(), nullable=False),
        Column("latency_ms", sa.Double(), nullable=False),
        Column("triton_ms", sa.Double(), nullable=True),
        Column("status", sa.SmallInteger(), nullable=False),
        Column("inputs", JSON, nullable=True),
        Column("outputs", JSON, nullable=True),
        Column("payload", sa.String(length=1000), nullable=True),
        PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
    )
    op.create_index(op.f("ix_predictions_key_time_id"), "predictions", ["key", "time", "id"])
    op.create_index(op.f("ix_predictions_model_time_id"), "predictions", ["model", "time", "id"])
    op.create_index(op.f("ix_predictions_time_id"), "predictions", ["time", "id"])

    op.create_table(
        "releases",
        Column("model", sa.String(length=200), nullable=False),
        Column("release", sa.String(length=200), nullable=False),
        Column("digest", sa.String(length=1000), nullable=True),
        Column("first_seen", sa.BigInteger(), nullable=False),
        Column("data", JSON, nullable=True),
        PrimaryKeyConstraint("model", "release", name=op.f("pk_releases")),
    )
    op.create_table(
        "usage",
        Column("key", sa.String(length=64), nullable=False),
        Column("day", sa.String(length=10), nullable=False),
        Column("model", sa.String(length=200), nullable=False),
        Column("requests", sa.BigInteger(), nullable=False),
        Column("rows", sa.BigInteger(), nullable=False),
        Column("failed", sa.BigInteger(), nullable=False),
        PrimaryKeyConstraint("key", "day", "model", name=op.f("pk_usage")),
    )
    op.create_table(
        "verdicts",
        Column("id", sa.String(length=64), nullable=False),
        Column("time", sa.BigInteger(), nullable=False),
        Column("model", sa.String(length=200), nullable=False),
        Column("release", sa.String(length=200), nullable=False),
        Column("against", sa.String(length=200), nullable=True),
        Column("judge", sa.String(length=200), nullable=False),
        Column("passed", sa.Boolean(), nullable=False),
        Column("evidence", JSON, nullable=True),
        PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
    )
    op.create_index(op.f("ix_verdicts_model_release_time"), "verdicts", ["model", "release", "time"])


def downgrade() -> None:
    for table in ("verdicts", "usage", "releases", "predictions", "places", "labels", "keys", "events", "erasures"):
        op.drop_table(table)  # and its indexes
