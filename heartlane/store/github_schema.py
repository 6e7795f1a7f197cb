"""Tables of projects that are linked with GitHub, as SQLAlchemy Core."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Table, Text

from heartlane.store.columns import Timestamp, guid, metadata

github_links = Table(
    "github_links",
    metadata,
    Column("project_id", guid(), ForeignKey("projects.id"), primary_key=True),
    Column("label", Text),  # issues with it become tickets; null: all of them
    Column("roles_json", Text, nullable=False),  # object: role → patterns of labels
    Column("milestone_id", guid(), ForeignKey("milestones.id")),
    Column("import_json", Text),  # how the last import stands
    Column("import_due_at", Timestamp),  # when it goes on; null: it has ended
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)

github_deliveries = Table(
    "github_deliveries",
    metadata,
    # Every message that was heard, for some days: a repeat of one changes nothing.
    Column("delivery_id", Text, primary_key=True),
    Column("received_at", Timestamp, nullable=False),
    Index("github_deliveries_received_at_idx", "received_at"),
)

pull_requests = Table(
    "pull_requests",
    metadata,
    Column("project_id", guid(), ForeignKey("projects.id"), primary_key=True),
    Column("url_key", Text, primary_key=True),  # a digest of the address
    Column("url", Text, nullable=False),
    Column("state", Text, nullable=False),  # opened, merged, closed
    Column("updated_at", Timestamp, nullable=False),
)
