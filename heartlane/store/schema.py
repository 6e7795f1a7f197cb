"""Tables of both engines, as SQLAlchemy Core.

This is the schema at the newest migration (`tests/upgrade` compares the two); what only one engine has (partitions,
fill factor) stands in the migrations. JSON columns are plain text on both engines: nothing is queried inside them, and
text keeps what was sent, NUL escapes included, which PostgreSQL's `jsonb` would refuse.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    false,
    text,
)

from heartlane.store.columns import Timestamp, big_key, guid, metadata

LIMITED: Final = text("limited")
accounts = Table(
    "accounts",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Timestamp, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("account_id", guid(), ForeignKey("accounts.id"), nullable=False),
    Column("project_id", guid(), ForeignKey("projects.id")),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("token_hash", Text, nullable=False, unique=True),  # hex SHA-256; the token itself is never stored
    Column("hint", Text, nullable=False),  # its first characters, to tell tokens apart in a list
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Column("revoked_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("worker_prefix", Text),  # how the ids of the workers begin that it may speak as; null: any
    Column("networks", Text),  # from where it may be used: CIDRs by comma; null: from anywhere
    Index("tokens_account_id_name_idx", "account_id", "name"),
)

audit = Table(
    "audit",
    metadata,
    # Who did what. Triggers refuse to change or delete a row, so it refers to no other, which might go.
    Column("number", big_key(), primary_key=True, autoincrement=True),
    Column("id", guid(), nullable=False, unique=True),
    Column("account_id", guid()),
    Column("project_id", guid()),
    Column("at", Timestamp, nullable=False),
    Column("action", Text, nullable=False),
    Column("object_type", Text, nullable=False),
    Column("object_id", Text),
    Column("object_name", Text),
    Column("actor_kind", Text, nullable=False),  # token, session, command_line, server, anonymous
    Column("actor_name", Text),
    Column("token_id", guid()),
    Column("session_id", guid()),
    Column("address", Text),
    Column("user_agent", Text),
    Column("details_json", Text, nullable=False, server_default="{}"),
    Index("audit_account_id_number_idx", "account_id", "number"),
    Index("audit_project_id_number_idx", "project_id", "number"),
    sqlite_autoincrement=True,
)

projects = Table(
    "projects",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("billing_account_id", guid(), ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("repo_url", Text),
    Column("default_branch", Text),
    Column("max_failures", Integer, nullable=False),
    Column("stalled_after_seconds", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("max_active", Integer),
    Column("max_active_by_role_json", Text, nullable=False, server_default="{}"),
    Column("max_active_by_source_json", Text, nullable=False, server_default="{}"),
    Column("limited", Boolean, nullable=False, server_default=false()),  # has a cap or a budget: claims look at it
    Index("projects_limited_idx", "billing_account_id", "id", sqlite_where=LIMITED, postgresql_where=LIMITED),
    Index("projects_billing_account_id_id_idx", "billing_account_id", "id"),
)

milestones = Table(
    "milestones",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("project_id", guid(), ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("status", Text, nullable=False, server_default="open"),  # open, closed
    Column("due_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Index("milestones_project_id_id_idx", "project_id", "id"),
)

tickets = Table(
    "tickets",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("project_id", guid(), ForeignKey("projects.id"), nullable=False),
    Column("milestone_id", guid(), ForeignKey("milestones.id")),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("request_type", Text),
    Column("priority", Text),
    Column("blocking", Boolean, nullable=False),
    Column("roles_json", Text, nullable=False),  # object: role (and "merged") → pending, in_progress, done, skipped
    Column("stage", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("resolution_type", Text),
    Column("pr_urls_json", Text, nullable=False, server_default="[]"),
    Column("evidence_json", Text),
    Column("suggested_resolution", Text),
    Column("actor_role", Text),
    Column("verified_existing", Boolean, nullable=False),
    Column("external_url", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("closed_at", Timestamp),
    Column("external_key", Text),  # what tells it from all others of its project elsewhere (heartlane.store.external)
    Column("external_said_json", Text),  # what its source said of it last (heartlane.lanes.upstream)
    Index("tickets_project_id_id_idx", "project_id", "id"),
    Index("tickets_milestone_id_idx", "milestone_id"),
    Index(
        "tickets_project_id_external_key_idx",
        "project_id",
        "external_key",
        unique=True,
        sqlite_where=text("external_key IS NOT NULL"),
        postgresql_where=text("external_key IS NOT NULL"),
    ),
)

PLANS_PENDING: Final = text("status = 'pending'")

plans = Table(
    "plans",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("billing_account_id", guid(), nullable=False),
    Column("project_id", guid(), ForeignKey("projects.id"), nullable=False),
    Column("milestone_id", guid(), ForeignKey("milestones.id")),
    Column("created_by_user_id", guid()),
    Column("title", Text, nullable=False),
    Column("status", Text, nullable=False),  # pending, approved, rejected
    Column("source_ticket_ids_json", Text, nullable=False),
    Column("lanes_json", Text, nullable=False),  # array of lanes as planned, without their prompts
    Column("prompts_json", Text, nullable=False, server_default="{}"),  # object: laneKey → prompt
    Column("rejection_reason", Text),
    Column("approved_at", Timestamp),
    Column("rejected_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Index("plans_billing_account_id_id_idx", "billing_account_id", "id"),
    Index("plans_project_id_id_idx", "project_id", "id"),
    Index("plans_changed_idx", "billing_account_id", "updated_at"),
    Index("plans_pending_idx", "created_at", sqlite_where=PLANS_PENDING, postgresql_where=PLANS_PENDING),
)

# Conditions of partial indexes. A query is only served by such an index when it says the very same in so many words: a
# bound parameter proves nothing to the planner.
CLAIMABLE: Final = text("state IN ('queued', 'released') AND blockers_left = 0 AND not_before IS NULL")
ACTIVE: Final = text("state IN ('claimed', 'running', 'paused', 'shipping')")
BUDGET_HELD: Final = text("budget_hold IS NOT NULL")
DELAYED: Final = text("state IN ('queued', 'released') AND not_before IS NOT NULL")

runs = Table(
    "runs",
    metadata,
    # Columns and their order are those of heartlane.lanes.run.Run. No index may stand on a column that a heartbeat
    # writes (last_heartbeat, lease_expires_at, updated_at, last_seq), or PostgreSQL's HOT updates end.
    Column("number", big_key(), primary_key=True, autoincrement=True),
    Column("id", guid(), nullable=False, unique=True),
    Column("billing_account_id", guid(), nullable=False),
    Column("project_id", guid(), ForeignKey("projects.id"), nullable=False),
    Column("plan_id", guid(), ForeignKey("plans.id"), nullable=False),
    Column("milestone_id", guid()),
    Column("lane_key", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("ticket_ids_json", Text, nullable=False),
    Column("labels_json", Text, nullable=False),
    Column("label_key", Text, nullable=False),
    Column("blocked_by_json", Text, nullable=False),
    Column("max_failures", Integer, nullable=False),
    Column("stalled_after_seconds", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("state", Text, nullable=False),
    Column("phase", Text),
    Column("log_line", Text),
    Column("error", Text),
    Column("worker_id", Text),
    Column("last_worker_id", Text),
    Column("attempt", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("lease_seconds", Integer, nullable=False),
    Column("claimed_at", Timestamp),
    Column("lease_expires_at", Timestamp),
    Column("last_heartbeat", Timestamp),
    Column("take_back_at", Timestamp),
    Column("progress_at", Timestamp),
    Column("waiting_for", Text),
    Column("over_budget", Boolean, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("not_before", Timestamp),
    Column("blockers_left", Integer, nullable=False),
    Column("pr_url", Text),
    Column("branch", Text),
    Column("commit", Text),
    Column("summary", Text),
    Column("event_count", BigInteger, nullable=False),
    Column("updated_at", Timestamp),
    Column("finished_at", Timestamp),
    Column("source", Text, nullable=False, server_default=""),
    Column("phase_at", Timestamp),
    Column("failure_reason", Text),
    Column("agent", Text),
    Column("model", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cost_micros", BigInteger),
    Column("attempt_usage_json", Text),
    Column("budget_hold", Text),
    Index(
        "runs_claimable_by_account_idx",
        "billing_account_id",
        "label_key",
        "role",
        text("priority DESC"),
        "number",
        sqlite_where=CLAIMABLE,
        postgresql_where=CLAIMABLE,
    ),
    Index(
        "runs_claimable_by_project_idx",
        "project_id",
        "source",
        "label_key",
        "role",
        text("priority DESC"),
        "number",
        sqlite_where=CLAIMABLE,
        postgresql_where=CLAIMABLE,
    ),
    Index("runs_delayed_idx", "not_before", sqlite_where=DELAYED, postgresql_where=DELAYED),
    Index(
        "runs_take_back_idx",
        "take_back_at",
        sqlite_where=text("take_back_at IS NOT NULL"),
        postgresql_where=text("take_back_at IS NOT NULL"),
    ),
    Index("runs_account_idx", "billing_account_id", "number"),
    Index("runs_project_idx", "project_id", "number"),
    Index("runs_project_state_idx", "project_id", "state"),
    Index("runs_plan_idx", "plan_id", "number"),
    Index("runs_state_idx", "billing_account_id", "state", "number"),
    Index(
        "runs_pr_url_idx",
        "pr_url",
        sqlite_where=text("pr_url IS NOT NULL"),
        postgresql_where=text("pr_url IS NOT NULL"),
        postgresql_using="hash",
    ),
    Index(
        "runs_worker_idx",
        "billing_account_id",
        "worker_id",
        "number",
        sqlite_where=text("worker_id IS NOT NULL"),
        postgresql_where=text("worker_id IS NOT NULL"),
    ),
    Index("runs_active_idx", "project_id", "role", "source", sqlite_where=ACTIVE, postgresql_where=ACTIVE),
    Index("runs_budget_hold_idx", "project_id", sqlite_where=BUDGET_HELD, postgresql_where=BUDGET_HELD),
    sqlite_autoincrement=True,
)

run_prompts = Table(
    "run_prompts",
    metadata,
    Column("run_id", guid(), ForeignKey("runs.id"), primary_key=True),
    Column("prompt", Text, nullable=False),
)

run_blockers = Table(
    "run_blockers",
    metadata,
    Column("blocker_id", guid(), ForeignKey("runs.id"), primary_key=True),
    Column("run_id", guid(), ForeignKey("runs.id"), primary_key=True),
)

label_sets = Table(
    "label_sets",
    metadata,
    # Every label set that a lane of the account ever had: a claim matches these few in memory and then probes the
    # claimable indexes by exact key, so lanes that ask for other labels are never scanned over.
    Column("billing_account_id", guid(), primary_key=True),
    Column("label_key", Text, primary_key=True),
)

lane_sources = Table(
    "lane_sources",
    metadata,
    # Every ticket source that a lane of the project ever had: a claim in one project, or past a cap, probes the
    # claimable index of each by exact key, so lanes of a source that is full are never scanned over.
    Column("billing_account_id", guid(), primary_key=True),
    Column("project_id", guid(), primary_key=True),
    Column("source", Text, primary_key=True),
)

budgets = Table(
    "budgets",
    metadata,
    # Amounts are micro-dollars and tokens, days are counted since 1970 (UTC). `state` is the last verdict, `told` the
    # last one that the servers have carried out: lanes held or let go on, and people told.
    Column("project_id", guid(), ForeignKey("projects.id"), primary_key=True),
    Column("usd_day", BigInteger),
    Column("usd_total", BigInteger),
    Column("tokens_day", BigInteger),
    Column("tokens_total", BigInteger),
    Column("on_exceeded", Text, nullable=False),
    Column("spent_usd_day", BigInteger, nullable=False),
    Column("spent_usd_total", BigInteger, nullable=False),
    Column("spent_tokens_day", BigInteger, nullable=False),
    Column("spent_tokens_total", BigInteger, nullable=False),
    Column("day", Integer, nullable=False),
    Column("waived_until", Timestamp),
    Column("state", Text, nullable=False),
    Column("told", Text, nullable=False),
    Column("words", Text),
    Column("reopens_at", Timestamp),
    Column("updated_at", Timestamp, nullable=False),
)

# What happened each day, by project. `shard` keeps servers that count at the same moment from waiting for each other;
# readers add the shards up.
usage_days = Table(
    "usage_days",
    metadata,
    Column("project_id", guid(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("role", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("attempts", BigInteger, nullable=False),
    Column("shipped", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
)

failure_days = Table(
    "failure_days",
    metadata,
    Column("project_id", guid(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("reason", Text, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
)

phase_days = Table(
    "phase_days",
    metadata,
    # `bucket`: how long the phase took, on a logarithmic scale (`heartlane.store.tallies`).
    Column("project_id", guid(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("phase", Text, primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    # One row a report, all its events in it: `body` is a JSON array of {type, payload, at?}, whose last element has
    # the number `last_seq`. On PostgreSQL the table is partitioned by `recorded_at`, which is why it is in the key.
    Column("position", big_key(), primary_key=True, autoincrement=True),
    Column("run_number", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Column("count", Integer, nullable=False),
    Column("types", Integer, nullable=False),  # which types are inside: bits of heartlane.lanes.run.EVENT_TYPE_BITS
    Column("worker_id", Text),
    Column("attempt", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("events_run_number_last_seq_idx", "run_number", "last_seq", unique=True),
    sqlite_autoincrement=True,
)

control = Table(
    "control",
    metadata,
    # One row. `alive_at`: when any server last looked for expired leases; `resumed_at`: the first such moment after
    # a time without any server; `events_pruned_before`: what is older may be missing from the log; `oldest_schema`: the
    # newest schema of the oldest version that can still work on this one.
    Column("id", Integer, primary_key=True),
    Column("alive_at", Timestamp),
    Column("resumed_at", Timestamp),
    Column("events_pruned_before", Timestamp),
    Column("oldest_schema", Text),
)
