"""Tables of what goes out: webhooks, what is sent to them and how that went, and notices with their rules.

They belong to the schema as those in `heartlane.store.schema` do.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, Text, text

from heartlane.store.columns import Timestamp, big_key, guid, metadata

PENDING: Final = text("next_at IS NOT NULL")
FINISHED: Final = text("finished_at IS NOT NULL")
OPEN: Final = text("closed_at IS NULL")
CLOSED: Final = text("closed_at IS NOT NULL")
"""Conditions of partial indexes; a query has to say the very same."""

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("billing_account_id", guid(), nullable=False),
    Column("project_id", guid(), ForeignKey("projects.id"), nullable=False),
    Column("name", Text),
    Column("format", Text, nullable=False),  # standard, slack, discord
    # The address may hold a secret (Slack's and Discord's do), so it is sealed as the secrets are: readable only with
    # the server's key. `url_shown` is what of it may be seen.
    Column("url_sealed", Text, nullable=False),
    Column("url_shown", Text, nullable=False),
    Column("events_json", Text, nullable=False),  # array of types and groups of them
    Column("secret_sealed", Text),  # null but for `standard`
    Column("old_secret_sealed", Text),
    Column("old_secret_until", Timestamp),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text),  # by_hand, gone, failing
    Column("disabled_at", Timestamp),
    Column("failures", Integer, nullable=False),  # attempts in a row that failed
    Column("failing_since", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Index("webhooks_project_id_id_idx", "project_id", "id"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    # The outbox: one row for each webhook and each piece of news that it chose, written in the transaction of what
    # happened. It refers to its webhook without a foreign key: a webhook that is deleted just then must not make the
    # change fail that the news is about.
    Column("number", big_key(), primary_key=True, autoincrement=True),
    Column("id", guid(), nullable=False, unique=True),  # also what the receiver tells repetitions by
    Column("webhook_id", guid(), nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),  # as it is sent in the format `standard`
    Column("state", Text, nullable=False),  # pending, delivered, failed, dropped
    Column("attempts", Integer, nullable=False),
    # When to send it; while it is being sent, when another server may do so. Null when it is finished.
    Column("next_at", Timestamp),
    Column("give_up_at", Timestamp, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    Index("webhook_deliveries_due_idx", "next_at", "number", sqlite_where=PENDING, postgresql_where=PENDING),
    Index("webhook_deliveries_finished_idx", "finished_at", sqlite_where=FINISHED, postgresql_where=FINISHED),
    Index("webhook_deliveries_webhook_idx", "webhook_id", "number"),
    sqlite_autoincrement=True,
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_number", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False),
    Column("status", Integer),  # null where there was no answer
    Column("milliseconds", Integer, nullable=False),
    Column("error", Text),  # why it counts as failed
    Column("answer", Text),  # how the answer's body begins
)

notices = Table(
    "notices",
    metadata,
    Column("number", big_key(), primary_key=True, autoincrement=True),
    Column("id", guid(), nullable=False, unique=True),
    Column("billing_account_id", guid(), nullable=False),
    Column("project_id", guid(), ForeignKey("projects.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),  # names the episode: the same one is told once
    Column("text", Text, nullable=False),
    Column("run_id", guid()),
    Column("plan_id", guid()),
    Column("webhook_id", guid()),
    Column("worker_id", Text),
    Column("details_json", Text, nullable=False),
    Column("raised_at", Timestamp, nullable=False),
    Column("closed_at", Timestamp),
    Column("closed_by", Text),  # progress, dismissed
    Column("dismissed_by", Text),  # the name of the token
    Index("notices_project_id_key_idx", "project_id", "key", unique=True),
    Index("notices_account_idx", "billing_account_id", "number"),
    Index("notices_project_idx", "project_id", "number"),
    Index("notices_open_idx", "billing_account_id", "number", sqlite_where=OPEN, postgresql_where=OPEN),
    Index("notices_closed_idx", "closed_at", sqlite_where=CLOSED, postgresql_where=CLOSED),
    sqlite_autoincrement=True,
)

notice_rules = Table(
    "notice_rules",
    metadata,
    # Projects that keep to the rules as they are by default have no row.
    Column("project_id", guid(), ForeignKey("projects.id"), primary_key=True),
    Column("rules_json", Text, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)
