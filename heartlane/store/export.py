"""Everything that a database holds, as files for other programs: one a table, out of one snapshot, without secrets.

The log is written with one line for each event, and its run's id beside it. Rows are read and written some at a time,
so that memory doesn't grow with them. A folder gets its name when everything is in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol

import orjson
from sqlalchemy import BigInteger, Boolean, Integer, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store.columns import Timestamp
from heartlane.store.connection import connection
from heartlane.store.runs import expand
from heartlane.store.schema import events, runs
from heartlane.store.tables import ROWS_AT_ONCE, SECRETS, all_tables, rows_of
from heartlane.store.upgrade import status_async

FORMATS: Final = ("jsonl", "parquet")
GROUP_ROWS: Final = 20_000
"""Rows in memory for a group of Parquet's."""
GROUP_BYTES_MAX: Final = 32 * 1024 * 1024

EVENT_COLUMNS: Final = {
    "run_id": "text",
    "seq": "integer",
    "type": "text",
    "payload": "json",
    "at": "text",
    "recorded_at": "time",
    "worker_id": "text",
    "attempt": "integer",
}
"""Columns of the log as it is exported, and their kinds."""


class Exported(NamedTuple):
    """One file: of which table, its rows, and the SHA-256 of its bytes in hex."""

    table: str
    file: str
    rows: int
    sha256: str


class ExportRefused(Exception):
    """It can't be done; the text says why. Nothing is left behind."""


class Writer(Protocol):
    """Writes the rows of one file."""

    def write(self, row: Sequence[Any]) -> None:
        """One row, its values in the order of the columns."""

    def close(self) -> None:
        """Write what is left."""


def export(url: str, folder: Path, kind: str, *, tables: Sequence[str] = ()) -> list[Exported]:
    """Write every table (or those) into a new folder, readable by this user alone.

    kind    one of FORMATS; `parquet` needs pyarrow

    Raises ExportRefused, StoreUnavailable, and ModuleNotFoundError without pyarrow.
    """
    if folder.exists():
        raise ExportRefused(f"{folder} is there already: name a folder that isn't.")
    unknown = sorted(set(tables) - {table.name for table in all_tables()})
    if unknown:
        raise ExportRefused(f"There is no table {', '.join(unknown)}.")
    if kind == "parquet":
        import pyarrow as pa  # noqa: F401, PLC0415 - an extra; before anything is begun
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(mode=0o700)
        done = asyncio.run(_export(url, part, kind, tables))
        part.replace(folder)
    except OSError as error:
        raise ExportRefused(f"{error.filename or folder} can't be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return done


def columns_of(table: Table) -> dict[str, str]:
    """The columns of a table that are exported, and their kinds: text, integer, boolean, time, json.

    A column `x_json` becomes `x`.
    """
    if table is events:
        return dict(EVENT_COLUMNS)
    kinds: dict[str, str] = {}
    for column in table.columns:
        if f"{table.name}.{column.name}" in SECRETS:
            continue
        kind = "text"
        if column.name.endswith("_json"):
            kind = "json"
        elif isinstance(column.type, Timestamp):
            kind = "time"
        elif isinstance(column.type, Boolean):
            kind = "boolean"
        elif isinstance(column.type, Integer | BigInteger):
            kind = "integer"
        kinds[column.name.removesuffix("_json")] = kind
    return kinds


async def _export(url: str, folder: Path, kind: str, wanted: Sequence[str]) -> list[Exported]:
    schema = (await status_async(url)).current
    if schema is None:
        raise ExportRefused("The database is empty.")
    done = []
    async with connection(url, snapshot=True) as conn:
        taken_at = datetime.now(UTC)
        for table in all_tables():
            if wanted and table.name not in wanted:
                continue
            name = f"{table.name}.{kind}"
            columns = columns_of(table)
            with (folder / name).open("xb") as file:
                writer: Writer = _Jsonl(file, columns) if kind == "jsonl" else _Parquet(file, columns)
                count = 0
                async for row in _rows(conn, table, columns):
                    writer.write(row)
                    count += 1
                writer.close()
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            done.append(Exported(table.name, name, count, digest))
    manifest = {
        "taken_at": taken_at.isoformat().replace("+00:00", "Z"),
        "schema": schema,
        "files": [each._asdict() for each in done],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return done


async def _rows(conn: AsyncConnection, table: Table, columns: dict[str, str]) -> AsyncIterator[Sequence[Any]]:
    if table is events:
        async for row in _events(conn):
            yield row
        return
    stored = [name if name in table.c else f"{name}_json" for name in columns]
    async for row in rows_of(conn, table, stored):
        yield row


async def _events(conn: AsyncConnection) -> AsyncIterator[Sequence[Any]]:
    query = (
        select(
            runs.c.id,
            events.c.body,
            events.c.last_seq,
            events.c.recorded_at,
            events.c.worker_id,
            events.c.attempt,
        )
        .join(runs, runs.c.number == events.c.run_number)
        .order_by(events.c.run_number, events.c.last_seq)
        .execution_options(yield_per=ROWS_AT_ONCE // 4)
    )
    async for run_id, body, last_seq, recorded_at, worker_id, attempt in await conn.stream(query):
        for event in expand(body, last_seq, recorded_at, worker_id, attempt):
            payload = json.dumps(event.payload, ensure_ascii=False, separators=(",", ":"))
            yield (run_id, event.seq, event.type, payload, event.at, recorded_at, worker_id, attempt)


class _Jsonl:
    """One object a line; JSON columns stand in it as they are."""

    def __init__(self, file: IO[bytes], columns: dict[str, str]) -> None:
        self._file = file
        self._names = list(columns)
        self._make: list[Callable[[Any], Any]] = [
            orjson.Fragment if kind == "json" else _as_it_is for kind in columns.values()
        ]

    def write(self, row: Sequence[Any]) -> None:
        """One line."""
        made = zip(self._names, self._make, row, strict=True)
        line = {name: None if value is None else make(value) for name, make, value in made}
        self._file.write(orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Nothing is left."""


def _as_it_is(value: Any) -> Any:
    return value


class _Parquet:
    """Row groups of a bounded size; JSON columns are text."""

    def __init__(self, file: IO[bytes], columns: dict[str, str]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415

        kinds = {
            "text": pa.string(),
            "json": pa.string(),
            "integer": pa.int64(),
            "boolean": pa.bool_(),
            "time": pa.timestamp("us", tz="UTC"),
        }
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._table = pa.Table
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Sequence[Any]] = []
        self._bytes = 0

    def write(self, row: Sequence[Any]) -> None:
        """One row; the group is written when it is full."""
        self._rows.append(row)
        self._bytes += sum(len(value) for value in row if isinstance(value, str))
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = {name: list(values) for name, values in zip(self._schema.names, columns, strict=True)}
        self._writer.write_table(self._table.from_pydict(arrays, schema=self._schema))
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        """The last group, and the file's end."""
        if self._rows:
            self._flush()
        self._writer.close()
