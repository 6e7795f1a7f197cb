"""What lanes use, how many of a project may be active, and what a project may cost.

The claimable index of a project gets the ticket source into its key; lanes that are there have none.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from heartlane.store.columns import Timestamp, guid

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CLAIMABLE = sa.text("state IN ('queued', 'released') AND blockers_left = 0 AND not_before IS NULL")
ACTIVE = sa.text("state IN ('claimed', 'running', 'paused', 'shipping')")
HELD = sa.text("budget_hold IS NOT NULL")
LIMITED = sa.text("limited")


def upgrade() -> None:
    _projects()
    _runs()
    op.create_table(
        "lane_sources",
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("billing_account_id", "project_id", "source", name="lane_sources_pkey"),
    )
    op.execute("INSERT INTO lane_sources SELECT DISTINCT billing_account_id, project_id, '' FROM runs")
    op.create_table(
        "budgets",
        sa.Column("project_id", guid(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in ("usd_day", "usd_total", "tokens_day", "tokens_total")),
        sa.Column("on_exceeded", sa.Text(), nullable=False),
        *(
            sa.Column(f"spent_{name}", sa.BigInteger(), nullable=False)
            for name in ("usd_day", "usd_total", "tokens_day", "tokens_total")
        ),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("waived_until", Timestamp()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("words", sa.Text()),
        sa.Column("reopens_at", Timestamp()),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="budgets_project_id_fkey"),
        sa.PrimaryKeyConstraint("project_id", name="budgets_pkey"),
    )
    figures = ("attempts", "shipped", "failed", "input_tokens", "output_tokens", "cached_tokens", "cost_micros")
    _days("usage_days", ("role", "agent", "model"), figures)
    _days("failure_days", ("reason",), ("count",))
    _days("phase_days", ("phase", "bucket"), ("count",))


def _projects() -> None:
    op.add_column("projects", sa.Column("max_active", sa.Integer(), nullable=True))
    for name in ("max_active_by_role_json", "max_active_by_source_json"):
        op.add_column("projects", sa.Column(name, sa.Text(), nullable=False, server_default="{}"))
    op.add_column("projects", sa.Column("limited", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index(
        "projects_limited_idx",
        "projects",
        ["billing_account_id", "id"],
        sqlite_where=LIMITED,
        postgresql_where=LIMITED,
    )


def _runs() -> None:
    op.add_column("runs", sa.Column("source", sa.Text(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("phase_at", Timestamp(), nullable=True))
    for name in ("failure_reason", "agent", "model"):
        op.add_column("runs", sa.Column(name, sa.Text(), nullable=True))
    for name in ("input_tokens", "output_tokens", "cached_tokens", "cost_micros"):
        op.add_column("runs", sa.Column(name, sa.BigInteger(), nullable=True))
    for name in ("attempt_usage_json", "budget_hold"):
        op.add_column("runs", sa.Column(name, sa.Text(), nullable=True))
    op.drop_index("runs_claimable_by_project_idx", "runs")
    op.create_index(
        "runs_claimable_by_project_idx",
        "runs",
        ["project_id", "source", "label_key", "role", sa.text("priority DESC"), "number"],
        sqlite_where=CLAIMABLE,
        postgresql_where=CLAIMABLE,
    )
    op.create_index(
        "runs_active_idx", "runs", ["project_id", "role", "source"], sqlite_where=ACTIVE, postgresql_where=ACTIVE
    )
    op.create_index("runs_budget_hold_idx", "runs", ["project_id"], sqlite_where=HELD, postgresql_where=HELD)


def _days(table: str, names: tuple[str, ...], figures: tuple[str, ...]) -> None:
    """A table of daily counts: the project, the day, what they are counted by, and the shard make the key."""
    op.create_table(
        table,
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.Integer() if name == "bucket" else sa.Text(), nullable=False) for name in names),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in figures),
        sa.PrimaryKeyConstraint("project_id", "day", *names, "shard", name=f"{table}_pkey"),
    )
