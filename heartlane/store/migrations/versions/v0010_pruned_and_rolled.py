"""What is known of the log's beginning, and which versions can still work on this schema.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from heartlane.store.columns import Timestamp

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("control", sa.Column("events_pruned_before", Timestamp(), nullable=True))
    op.add_column("control", sa.Column("oldest_schema", sa.Text(), nullable=True))
