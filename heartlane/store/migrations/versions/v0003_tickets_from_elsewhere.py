"""A ticket is told from others by what it is called elsewhere, once in its project.

Where several tickets of a project have the same `external_url`, the oldest keeps it; each other's gets a fragment with
its own id. It still leads to the same page, and nothing is lost.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BATCH = 1_000
HAS_KEY = sa.text("external_key IS NOT NULL")


def upgrade() -> None:
    op.add_column("tickets", sa.Column("external_key", sa.Text(), nullable=True))
    op.add_column("tickets", sa.Column("external_said_json", sa.Text(), nullable=True))
    _fill_keys()
    op.create_index(
        "tickets_project_id_external_key_idx",
        "tickets",
        ["project_id", "external_key"],
        unique=True,
        sqlite_where=HAS_KEY,
        postgresql_where=HAS_KEY,
    )


def _fill_keys() -> None:
    conn = op.get_bind()
    found = conn.execute(
        sa.text("SELECT id, project_id, external_url FROM tickets WHERE external_url IS NOT NULL ORDER BY id")
    ).all()
    taken: set[tuple[str, str]] = set()
    changes = []
    for ticket_id, project_id, url in found:
        own = url if (str(project_id), url) not in taken else f"{url}#{ticket_id}"
        taken.add((str(project_id), own))
        changes.append({"id": ticket_id, "url": own, "key": _key(own)})
    write = sa.text("UPDATE tickets SET external_url = :url, external_key = :key WHERE id = :id")
    for start in range(0, len(changes), BATCH):
        conn.execute(write, changes[start : start + BATCH])


def _key(url: str) -> str:
    return "url:" + hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
