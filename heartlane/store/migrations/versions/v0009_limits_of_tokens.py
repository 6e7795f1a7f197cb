"""Tokens may be limited to workers whose ids begin in one way, and to networks.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("worker_prefix", sa.Text(), nullable=True))
    op.add_column("tokens", sa.Column("networks", sa.Text(), nullable=True))
