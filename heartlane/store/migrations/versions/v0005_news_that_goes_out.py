"""News that goes out: webhooks, their outbox and its log, notices and their rules.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from heartlane.store.columns import Timestamp, big_key, guid

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PENDING = sa.text("next_at IS NOT NULL")
FINISHED = sa.text("finished_at IS NOT NULL")
OPEN = sa.text("closed_at IS NULL")
CLOSED = sa.text("closed_at IS NOT NULL")
PLANS_PENDING = sa.text("status = 'pending'")


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", guid(), nullable=False),
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("url_sealed", sa.Text(), nullable=False),
        sa.Column("url_shown", sa.Text(), nullable=False),
        sa.Column("events_json", sa.Text(), nullable=False),
        sa.Column("secret_sealed", sa.Text(), nullable=True),
        sa.Column("old_secret_sealed", sa.Text(), nullable=True),
        sa.Column("old_secret_until", Timestamp(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("disabled_at", Timestamp(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="webhooks_project_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="webhooks_pkey"),
    )
    op.create_index("webhooks_project_id_id_idx", "webhooks", ["project_id", "id"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("number", big_key(), autoincrement=True, nullable=False),
        sa.Column("id", guid(), nullable=False),
        sa.Column("webhook_id", guid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", Timestamp(), nullable=True),
        sa.Column("give_up_at", Timestamp(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("finished_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("number", name="webhook_deliveries_pkey"),
        sa.UniqueConstraint("id", name="webhook_deliveries_id_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "webhook_deliveries_due_idx",
        "webhook_deliveries",
        ["next_at", "number"],
        unique=False,
        sqlite_where=PENDING,
        postgresql_where=PENDING,
    )
    op.create_index(
        "webhook_deliveries_finished_idx",
        "webhook_deliveries",
        ["finished_at"],
        unique=False,
        sqlite_where=FINISHED,
        postgresql_where=FINISHED,
    )
    op.create_index("webhook_deliveries_webhook_idx", "webhook_deliveries", ["webhook_id", "number"], unique=False)
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("delivery_number", "attempt", name="webhook_attempts_pkey"),
    )
    _create_notices()
    op.create_index(
        "plans_pending_idx",
        "plans",
        ["created_at"],
        unique=False,
        sqlite_where=PLANS_PENDING,
        postgresql_where=PLANS_PENDING,
    )


def _create_notices() -> None:
    op.create_table(
        "notices",
        sa.Column("number", big_key(), autoincrement=True, nullable=False),
        sa.Column("id", guid(), nullable=False),
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("run_id", guid(), nullable=True),
        sa.Column("plan_id", guid(), nullable=True),
        sa.Column("webhook_id", guid(), nullable=True),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("details_json", sa.Text(), nullable=False),
        sa.Column("raised_at", Timestamp(), nullable=False),
        sa.Column("closed_at", Timestamp(), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("dismissed_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="notices_project_id_fkey"),
        sa.PrimaryKeyConstraint("number", name="notices_pkey"),
        sa.UniqueConstraint("id", name="notices_id_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("notices_project_id_key_idx", "notices", ["project_id", "key"], unique=True)
    op.create_index("notices_account_idx", "notices", ["billing_account_id", "number"], unique=False)
    op.create_index("notices_project_idx", "notices", ["project_id", "number"], unique=False)
    op.create_index(
        "notices_open_idx",
        "notices",
        ["billing_account_id", "number"],
        unique=False,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_index(
        "notices_closed_idx",
        "notices",
        ["closed_at"],
        unique=False,
        sqlite_where=CLOSED,
        postgresql_where=CLOSED,
    )
    op.create_table(
        "notice_rules",
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("rules_json", sa.Text(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="notice_rules_project_id_fkey"),
        sa.PrimaryKeyConstraint("project_id", name="notice_rules_pkey"),
    )
