"""The table of workers that ask for lanes, as SQLAlchemy Core."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Table, Text

from heartlane.store.columns import Timestamp, guid, metadata

workers_seen = Table(
    "workers_seen",
    metadata,
    # A worker that holds lanes is known by them; this is for those that ask for one. Nothing but the list of workers
    # reads it, and no report writes it.
    Column("billing_account_id", guid(), ForeignKey("accounts.id"), primary_key=True),
    Column("worker_id", Text, primary_key=True),
    Column("scope", Text, primary_key=True),  # the project whose lanes alone it asks for, "" for any of the account
    Column("roles_json", Text, nullable=False),  # array; empty: any
    Column("labels_json", Text, nullable=False),  # object: what it offers
    Column("asks_since", Timestamp, nullable=False),
    Column("asks_until", Timestamp, nullable=False),  # then it waits no more, unless it asks again
    Column("seen_at", Timestamp, nullable=False),
    Index("workers_seen_seen_at_idx", "seen_at"),
)
