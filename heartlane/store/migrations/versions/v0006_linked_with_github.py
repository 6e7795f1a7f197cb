"""Projects that are linked with GitHub, the messages that were heard of it, and how pull requests stand.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from heartlane.store.columns import Timestamp, guid

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

HAS_PR = sa.text("pr_url IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "github_links",
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("roles_json", sa.Text(), nullable=False),
        sa.Column("milestone_id", guid(), nullable=True),
        sa.Column("import_json", sa.Text(), nullable=True),
        sa.Column("import_due_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="github_links_project_id_fkey"),
        sa.ForeignKeyConstraint(["milestone_id"], ["milestones.id"], name="github_links_milestone_id_fkey"),
        sa.PrimaryKeyConstraint("project_id", name="github_links_pkey"),
    )
    op.create_table(
        "github_deliveries",
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("received_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", name="github_deliveries_pkey"),
    )
    op.create_index("github_deliveries_received_at_idx", "github_deliveries", ["received_at"], unique=False)
    op.create_table(
        "pull_requests",
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("url_key", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="pull_requests_project_id_fkey"),
        sa.PrimaryKeyConstraint("project_id", "url_key", name="pull_requests_pkey"),
    )
    # By hash on PostgreSQL: an address may be longer than an entry of another index.
    op.create_index(
        "runs_pr_url_idx",
        "runs",
        ["pr_url"],
        unique=False,
        sqlite_where=HAS_PR,
        postgresql_where=HAS_PR,
        postgresql_using="hash",
    )
