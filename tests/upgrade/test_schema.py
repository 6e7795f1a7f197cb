"""The schema that the migrations make is the one that the code works with: compared in the database's own words."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from heartlane.store import github_schema, news_schema, schema, session_schema  # noqa: F401 - their tables belong to the metadata
from heartlane.store.columns import metadata
from heartlane.store.upgrade import upgrade_async
from tests.upgrade.database import fetch, is_sqlite, tables

# What PostgreSQL has otherwise than the tables in `heartlane.store.schema` stands in its migrations alone: the log is
# partitioned by time, so that its keys have the time in them, and a heartbeat rewrites its row in place.
BY_RUN = "events: CREATE UNIQUE INDEX events_run_number_last_seq_idx ON"
VACUUM = (
    "'autovacuum_vacuum_scale_factor=0.02', 'autovacuum_vacuum_threshold=500', 'autovacuum_analyze_scale_factor=0.05'"
)
ONLY_MIGRATED = {
    "events.xid #10 xid8 not null True default pg_current_xact_id()",
    'events: CREATE INDEX events_position_idx ON ONLY public.events USING btree ("position")',
    f"{BY_RUN} ONLY public.events USING btree (run_number, last_seq, recorded_at)",
    "events: p None",
    f"runs: r ['fillfactor=50', {VACUUM}]",
}
ONLY_WRITTEN = {
    'events events_pkey: PRIMARY KEY ("position")',
    'events: CREATE UNIQUE INDEX events_pkey ON public.events USING btree ("position")',
    f"{BY_RUN} public.events USING btree (run_number, last_seq)",
    "events: r None",
    "runs: r None",
}


async def described(url: str) -> set[str]:
    """Every column, key and index, a line each."""
    found: set[str] = set()
    for table in await tables(url):
        found.update(await (_in_sqlite if is_sqlite(url) else _in_postgresql)(url, table))
    return found


async def _in_sqlite(url: str, table: str) -> Iterable[str]:
    columns = await fetch(url, f"SELECT * FROM pragma_table_info('{table}')")
    keys = await fetch(url, f"SELECT * FROM pragma_foreign_key_list('{table}')")
    indexes = await fetch(url, f"SELECT * FROM pragma_index_list('{table}')")
    texts = {row["name"]: row["sql"] for row in await fetch(url, "SELECT name, sql FROM sqlite_master")}
    grows = "AUTOINCREMENT" in texts[table].upper()
    return [
        f"{table}: numbers are never used again: {grows}",
        *(
            f"{table}.{row['name']} #{row['cid']} {row['type']} not null {row['notnull']} default {row['dflt_value']} "
            f"key {row['pk']}"
            for row in columns
        ),
        *(f"{table}.{row['from']} -> {row['table']}.{row['to']} {row['on_delete']}" for row in keys),
        *(
            f"{table} index {row['name']} unique {row['unique']} of {row['origin']}: {texts.get(row['name'])}"
            for row in indexes
        ),
    ]


async def _in_postgresql(url: str, table: str) -> Iterable[str]:
    of_table = f"'{table}'::regclass"
    columns = await fetch(
        url,
        "SELECT attname AS name, attnum AS place, format_type(atttypid, atttypmod) AS type, attnotnull AS required, "
        "pg_get_expr(adbin, adrelid) AS standard, attidentity::text AS identity FROM pg_attribute "
        f"LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = {of_table} AND attnum > 0",
    )
    keys = await fetch(
        url,
        f"SELECT conname AS name, pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conrelid = {of_table} "
        "AND contype <> 'n'",
    )
    indexes = await fetch(url, f"SELECT pg_get_indexdef(indexrelid) AS text FROM pg_index WHERE indrelid = {of_table}")
    options = await fetch(url, f"SELECT relkind::text AS kind, reloptions FROM pg_class WHERE oid = {of_table}")
    return [
        f"{table}: {options[0]['kind']} {options[0]['reloptions']}",
        *(
            f"{table}.{row['name']} #{row['place']} {row['type']} not null {row['required']} "
            f"default {row['standard']} {row['identity']}".rstrip()
            for row in columns
        ),
        *(f"{table} {row['name']}: {row['text']}" for row in keys),
        *(f"{table}: {row['text']}" for row in indexes),
    ]


async def test_a_migrated_database_is_as_the_code_has_it(empty_database_url: str) -> None:
    url = empty_database_url
    driver = "sqlite+aiosqlite" if is_sqlite(url) else "postgresql+asyncpg"
    engine = create_async_engine(make_url(url).set(drivername=driver), poolclass=NullPool)
    try:
        async with engine.begin() as conn:
            await conn.run_sync(metadata.create_all)
        written = await described(url)
        async with engine.begin() as conn:
            await conn.run_sync(metadata.drop_all)
    finally:
        await engine.dispose()
    assert len(written) > 150, "it sees the columns of every table"
    await upgrade_async(url)
    migrated = await described(url)
    assert migrated - written == (set() if is_sqlite(url) else ONLY_MIGRATED)
    assert written - migrated == (set() if is_sqlite(url) else ONLY_WRITTEN)
