"""A project's lanes are counted by state from an index alone, as the overview shows them.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("runs_project_state_idx", "runs", ["project_id", "state"], unique=False)
