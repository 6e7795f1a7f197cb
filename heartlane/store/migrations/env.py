"""Alembic's entry: runs on the connection that `heartlane.store.upgrade` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from heartlane.store import github_schema, news_schema, schema, session_schema  # noqa: F401 - their tables belong to the metadata
from heartlane.store.columns import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
