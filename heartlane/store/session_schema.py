"""Tables of browsers that are logged in and of links to log in with, as SQLAlchemy Core."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Table, Text

from heartlane.store.columns import Timestamp, guid, metadata

sessions = Table(
    "sessions",
    metadata,
    # A browser that is logged in, with the rights of the token it was logged in with and for no longer than that lasts.
    Column("id", guid(), primary_key=True),
    Column("account_id", guid(), ForeignKey("accounts.id"), nullable=False),
    Column("token_id", guid(), ForeignKey("tokens.id"), nullable=False),
    Column("secret_hash", Text, nullable=False, unique=True),  # hex SHA-256 of what the cookie holds
    Column("method", Text, nullable=False),  # token, link
    Column("address", Text),
    Column("user_agent", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("last_used_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("end_reason", Text),  # logged_out, revoked, replaced
    Index("sessions_account_id_id_idx", "account_id", "id"),
)

login_links = Table(
    "login_links",
    metadata,
    Column("id", guid(), primary_key=True),
    Column("token_id", guid(), ForeignKey("tokens.id"), nullable=False),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("used_at", Timestamp),
)
