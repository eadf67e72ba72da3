"""A caller's own id of a request.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("predictions", sa.Column("caller_id", sa.String(length=200), nullable=True))


def downgrade() -> None:
    op.drop_column("predictions", "caller_id")  # SQLite knows it from 3.35 on, as it does RETURNING
