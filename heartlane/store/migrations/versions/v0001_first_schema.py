"""The first schema: accounts, tokens, projects, tickets, plans, runs and their event log.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from heartlane.store.columns import Timestamp, big_key, guid

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CLAIMABLE = sa.text("state IN ('queued', 'released') AND blockers_left = 0 AND not_before IS NULL")

# Partitioned by time, so that old events go by dropping a table. PostgreSQL wants the partition key in every unique
# index, and knows identity columns on partitioned tables only since version 17, hence the sequence. `xid` tells which
# transaction wrote a row: a cursor over `position` must not pass one that commits late.
POSTGRES_EVENTS = """
CREATE SEQUENCE events_position_seq;
CREATE TABLE events (
    position bigint NOT NULL DEFAULT nextval('events_position_seq'),
    run_number bigint NOT NULL,
    last_seq bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    "count" integer NOT NULL,
    types integer NOT NULL,
    worker_id text,
    attempt bigint NOT NULL,
    body text NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id()
) PARTITION BY RANGE (recorded_at);
ALTER SEQUENCE events_position_seq OWNED BY events.position;
CREATE UNIQUE INDEX events_run_number_last_seq_idx ON events (run_number, last_seq, recorded_at);
CREATE INDEX events_position_idx ON events USING brin (position);
CREATE TABLE events_rest PARTITION OF events DEFAULT
"""

# Room on each page for the next version of its rows, and an eager vacuum: a heartbeat rewrites its row in place (HOT).
POSTGRES_RUNS = """
ALTER TABLE runs SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.05)
"""


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", guid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="accounts_pkey"),
        sa.UniqueConstraint("name", name="accounts_name_key"),
    )
    op.create_table(
        "control",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("alive_at", Timestamp(), nullable=True),
        sa.Column("resumed_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="control_pkey"),
    )
    _create_events()
    op.create_table(
        "label_sets",
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("label_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("billing_account_id", "label_key", name="label_sets_pkey"),
    )
    op.create_table(
        "projects",
        sa.Column("id", guid(), nullable=False),
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("repo_url", sa.Text(), nullable=True),
        sa.Column("default_branch", sa.Text(), nullable=True),
        sa.Column("max_failures", sa.Integer(), nullable=False),
        sa.Column("stalled_after_seconds", sa.Integer(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["billing_account_id"], ["accounts.id"], name="projects_billing_account_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="projects_pkey"),
    )
    op.create_index("projects_billing_account_id_id_idx", "projects", ["billing_account_id", "id"], unique=False)
    op.create_table(
        "milestones",
        sa.Column("id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="open", nullable=False),
        sa.Column("due_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="milestones_project_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="milestones_pkey"),
    )
    op.create_index("milestones_project_id_id_idx", "milestones", ["project_id", "id"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", guid(), nullable=False),
        sa.Column("account_id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("revoked_at", Timestamp(), nullable=True),
        sa.Column("last_used_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="tokens_account_id_fkey"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="tokens_project_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="tokens_pkey"),
        sa.UniqueConstraint("token_hash", name="tokens_token_hash_key"),
    )
    op.create_index("tokens_account_id_name_idx", "tokens", ["account_id", "name"], unique=False)
    op.create_table(
        "plans",
        sa.Column("id", guid(), nullable=False),
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("milestone_id", guid(), nullable=True),
        sa.Column("created_by_user_id", guid(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("source_ticket_ids_json", sa.Text(), nullable=False),
        sa.Column("lanes_json", sa.Text(), nullable=False),
        sa.Column("prompts_json", sa.Text(), server_default="{}", nullable=False),
        sa.Column("rejection_reason", sa.Text(), nullable=True),
        sa.Column("approved_at", Timestamp(), nullable=True),
        sa.Column("rejected_at", Timestamp(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["milestone_id"], ["milestones.id"], name="plans_milestone_id_fkey"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="plans_project_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="plans_pkey"),
    )
    op.create_index("plans_billing_account_id_id_idx", "plans", ["billing_account_id", "id"], unique=False)
    op.create_index("plans_project_id_id_idx", "plans", ["project_id", "id"], unique=False)
    op.create_table(
        "tickets",
        sa.Column("id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("milestone_id", guid(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("request_type", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=True),
        sa.Column("blocking", sa.Boolean(), nullable=False),
        sa.Column("roles_json", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("resolution_type", sa.Text(), nullable=True),
        sa.Column("pr_urls_json", sa.Text(), server_default="[]", nullable=False),
        sa.Column("evidence_json", sa.Text(), nullable=True),
        sa.Column("suggested_resolution", sa.Text(), nullable=True),
        sa.Column("actor_role", sa.Text(), nullable=True),
        sa.Column("verified_existing", sa.Boolean(), nullable=False),
        sa.Column("external_url", sa.Text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.Column("closed_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(["milestone_id"], ["milestones.id"], name="tickets_milestone_id_fkey"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="tickets_project_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="tickets_pkey"),
    )
    op.create_index("tickets_milestone_id_idx", "tickets", ["milestone_id"], unique=False)
    op.create_index("tickets_project_id_id_idx", "tickets", ["project_id", "id"], unique=False)
    op.create_table(
        "runs",
        sa.Column("number", big_key(), autoincrement=True, nullable=False),
        sa.Column("id", guid(), nullable=False),
        sa.Column("billing_account_id", guid(), nullable=False),
        sa.Column("project_id", guid(), nullable=False),
        sa.Column("plan_id", guid(), nullable=False),
        sa.Column("milestone_id", guid(), nullable=True),
        sa.Column("lane_key", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("ticket_ids_json", sa.Text(), nullable=False),
        sa.Column("labels_json", sa.Text(), nullable=False),
        sa.Column("label_key", sa.Text(), nullable=False),
        sa.Column("blocked_by_json", sa.Text(), nullable=False),
        sa.Column("max_failures", sa.Integer(), nullable=False),
        sa.Column("stalled_after_seconds", sa.Integer(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("log_line", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("last_worker_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("lease_seconds", sa.Integer(), nullable=False),
        sa.Column("claimed_at", Timestamp(), nullable=True),
        sa.Column("lease_expires_at", Timestamp(), nullable=True),
        sa.Column("last_heartbeat", Timestamp(), nullable=True),
        sa.Column("take_back_at", Timestamp(), nullable=True),
        sa.Column("progress_at", Timestamp(), nullable=True),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("over_budget", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("not_before", Timestamp(), nullable=True),
        sa.Column("blockers_left", sa.Integer(), nullable=False),
        sa.Column("pr_url", sa.Text(), nullable=True),
        sa.Column("branch", sa.Text(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=True),
        sa.Column("finished_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="runs_plan_id_fkey"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="runs_project_id_fkey"),
        sa.PrimaryKeyConstraint("number", name="runs_pkey"),
        sa.UniqueConstraint("id", name="runs_id_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("runs_account_idx", "runs", ["billing_account_id", "number"], unique=False)
    op.create_index(
        "runs_claimable_by_account_idx",
        "runs",
        ["billing_account_id", "label_key", "role", sa.text("priority DESC"), "number"],
        sqlite_where=CLAIMABLE,
        postgresql_where=CLAIMABLE,
    )
    op.create_index(
        "runs_claimable_by_project_idx",
        "runs",
        ["project_id", "label_key", "role", sa.text("priority DESC"), "number"],
        sqlite_where=CLAIMABLE,
        postgresql_where=CLAIMABLE,
    )
    op.create_index(
        "runs_delayed_idx",
        "runs",
        ["not_before"],
        unique=False,
        sqlite_where=sa.text("state IN ('queued', 'released') AND not_before IS NOT NULL"),
        postgresql_where=sa.text("state IN ('queued', 'released') AND not_before IS NOT NULL"),
    )
    op.create_index("runs_plan_idx", "runs", ["plan_id", "number"], unique=False)
    op.create_index("runs_project_idx", "runs", ["project_id", "number"], unique=False)
    op.create_index("runs_state_idx", "runs", ["billing_account_id", "state", "number"], unique=False)
    op.create_index(
        "runs_take_back_idx",
        "runs",
        ["take_back_at"],
        unique=False,
        sqlite_where=sa.text("take_back_at IS NOT NULL"),
        postgresql_where=sa.text("take_back_at IS NOT NULL"),
    )
    op.create_index(
        "runs_worker_idx",
        "runs",
        ["billing_account_id", "worker_id", "number"],
        unique=False,
        sqlite_where=sa.text("worker_id IS NOT NULL"),
        postgresql_where=sa.text("worker_id IS NOT NULL"),
    )
    op.create_table(
        "run_blockers",
        sa.Column("blocker_id", guid(), nullable=False),
        sa.Column("run_id", guid(), nullable=False),
        sa.ForeignKeyConstraint(["blocker_id"], ["runs.id"], name="run_blockers_blocker_id_fkey"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="run_blockers_run_id_fkey"),
        sa.PrimaryKeyConstraint("blocker_id", "run_id", name="run_blockers_pkey"),
    )
    op.create_table(
        "run_prompts",
        sa.Column("run_id", guid(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="run_prompts_run_id_fkey"),
        sa.PrimaryKeyConstraint("run_id", name="run_prompts_pkey"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRES_RUNS)
    op.execute("INSERT INTO control (id) VALUES (1)")


def _create_events() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for statement in POSTGRES_EVENTS.split(";"):
            op.execute(statement)
        return
    op.create_table(
        "events",
        sa.Column("position", big_key(), autoincrement=True, nullable=False),
        sa.Column("run_number", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", Timestamp(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("types", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="events_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_run_number_last_seq_idx", "events", ["run_number", "last_seq"], unique=True)
