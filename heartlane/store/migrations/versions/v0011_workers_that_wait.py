"""Workers that ask for a lane are known before they hold one.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from heartlane.store.columns import Timestamp, guid

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "workers_seen",
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("roles_json", sa.Text(), nullable=False),
        sa.Column("labels_json", sa.Text(), nullable=False),
        sa.Column("asks_since", Timestamp(), nullable=False),
        sa.Column("asks_until", Timestamp(), nullable=False),
        sa.Column("seen_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["billing_account_id"], ["accounts.id"], name="workers_seen_billing_account_id_fkey"),
        sa.PrimaryKeyConstraint("billing_account_id", "worker_id", "scope", name="workers_seen_pkey"),
    )
    op.create_index("workers_seen_seen_at_idx", "workers_seen", ["seen_at"], unique=False)
