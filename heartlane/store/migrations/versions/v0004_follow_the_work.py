"""What streams of all work read by: the log by its position, plans by when they changed.

Both are written where something happens, never by a bare heartbeat.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("plans_changed_idx", "plans", ["billing_account_id", "updated_at"], unique=False)
    if op.get_bind().dialect.name == "postgresql":
        # A BRIN index has every page that was written since the last vacuum read: far too many at the log's busy end.
        op.execute("DROP INDEX events_position_idx")
        op.execute("CREATE INDEX events_position_idx ON events (position)")
