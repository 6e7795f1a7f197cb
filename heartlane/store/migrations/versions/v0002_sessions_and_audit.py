"""Browsers that are logged in, one-time links to log in with, and the log of who did what.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from heartlane.store.columns import Timestamp, big_key, guid

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The log of who did what is written once and never again, whoever asks. What is refused is refused by the database, so
# that no fault of the server's, and no statement by hand that wasn't meant so, can change it.
SQLITE_APPEND_ONLY = (
    """
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
""",
    """
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
""",
    # INSERT OR REPLACE deletes the row in its way without asking the trigger above.
    """
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number OR id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
""",
)
POSTGRES_APPEND_ONLY = (
    """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RAISE EXCEPTION ''the audit log is append-only''; END'
""",
    """
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
""",
)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", guid(), nullable=False),
        sa.Column("account_id", guid(), nullable=False),
        sa.Column("token_id", guid(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("last_used_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("ended_at", Timestamp(), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="sessions_account_id_fkey"),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="sessions_token_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="sessions_pkey"),
        sa.UniqueConstraint("secret_hash", name="sessions_secret_hash_key"),
    )
    op.create_index("sessions_account_id_id_idx", "sessions", ["account_id", "id"], unique=False)
    op.create_table(
        "login_links",
        sa.Column("id", guid(), nullable=False),
        sa.Column("token_id", guid(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=False),
        sa.Column("used_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="login_links_token_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="login_links_pkey"),
        sa.UniqueConstraint("secret_hash", name="login_links_secret_hash_key"),
    )
    op.create_table(
        "audit",
        sa.Column("number", big_key(), autoincrement=True, nullable=False),
        sa.Column("id", guid(), nullable=False),
        sa.Column("account_id", guid(), nullable=True),
        sa.Column("project_id", guid(), nullable=True),
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=True),
        sa.Column("object_name", sa.Text(), nullable=True),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_name", sa.Text(), nullable=True),
        sa.Column("token_id", guid(), nullable=True),
        sa.Column("session_id", guid(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("details_json", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("number", name="audit_pkey"),
        sa.UniqueConstraint("id", name="audit_id_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_account_id_number_idx", "audit", ["account_id", "number"], unique=False)
    op.create_index("audit_project_id_number_idx", "audit", ["project_id", "number"], unique=False)
    postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRES_APPEND_ONLY if postgresql else SQLITE_APPEND_ONLY:
        op.execute(statement)
