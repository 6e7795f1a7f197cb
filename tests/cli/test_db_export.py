"""`heartlane db export`: everything but secrets, the same from both engines and in both formats."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from heartlane.store.tables import SECRETS, all_tables
from tests.cli.command import Ended, assert_one_line, here
from tests.harness import Harness

SECRET_WORDS = ("hash", "secret", "sealed", "password", "key")
PUBLIC = {
    *("label_sets.label_key", "runs.label_key", "runs.lane_key", "notices.key", "tickets.external_key"),
    *("pull_requests.url_key", "webhooks.old_secret_until"),
}
"""Columns whose names sound like secrets, and are none."""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def exported(url: str, folder: Path, *flags: str) -> Ended:
    return await asyncio.to_thread(here, "db", "export", str(folder), *flags, HEARTLANE_DATABASE=url)


def test_every_column_that_may_hold_a_secret_was_thought_of() -> None:
    suspicious = {
        f"{table.name}.{column.name}"
        for table in all_tables()
        for column in table.columns
        if any(word in column.name for word in SECRET_WORDS)
    }
    assert suspicious == SECRETS | PUBLIC


async def test_everything_but_secrets_is_exported(harness: Harness, database_url: str, tmp_path: Path) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"])
    payload = {"text": "Ä\0", "n": 12345678901234567890123}
    await harness.report(run["id"], events=[{"type": "action", "payload": payload}, {"type": "heartbeat"}])
    done = await exported(database_url, tmp_path / "jsonl")
    assert done.code == 0, done
    assert {each.stem for each in (tmp_path / "jsonl").iterdir()} == {table.name for table in all_tables()} | {
        "manifest"
    }
    (told,) = lines(tmp_path / "jsonl" / "runs.jsonl")
    assert (told["id"], told["state"], told["labels"]) == (run["id"], "running", {})
    assert told["last_heartbeat"].endswith("Z")
    events = lines(tmp_path / "jsonl" / "events.jsonl")
    assert [(each["seq"], each["type"], each["run_id"]) for each in events] == [
        *((1, "claimed", run["id"]), (2, "action", run["id"]), (3, "heartbeat", run["id"]))
    ]
    assert events[1]["payload"] == payload
    everything = "".join(each.read_text("utf-8") for each in (tmp_path / "jsonl").iterdir())
    assert "token_hash" not in everything
    assert len(lines(tmp_path / "jsonl" / "tokens.jsonl")) == 4
    assert (tmp_path / "jsonl").stat().st_mode & 0o777 == 0o700

    assert (await exported(database_url, tmp_path / "parquet", "--format", "parquet")).code == 0
    table = parquet.read_table(tmp_path / "parquet" / "events.parquet").to_pylist()
    assert [each["seq"] for each in table] == [1, 2, 3]
    assert json.loads(table[1]["payload"]) == payload
    assert table[0]["recorded_at"].isoformat().replace("+00:00", "Z") == events[0]["recorded_at"]
    (row,) = parquet.read_table(tmp_path / "parquet" / "runs.parquet").to_pylist()
    assert {name: row[name] for name in ("id", "state", "attempt", "labels")} == {
        "id": run["id"],
        "state": "running",
        "attempt": 1,
        "labels": "{}",
    }
    assert parquet.read_table(tmp_path / "parquet" / "webhooks.parquet").num_rows == 0


def test_what_an_export_refuses(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "heartlane.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = f"sqlite:///{path}"
    there = tmp_path / "there"
    there.mkdir()
    for folder, *flags in ((there,), (tmp_path / "no" / "such",), (tmp_path / "new", "--table", "nothing")):
        assert_one_line(here("db", "export", str(folder), *flags, HEARTLANE_DATABASE=database), 2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = assert_one_line(
        here("db", "export", str(tmp_path / "new"), "--format", "parquet", HEARTLANE_DATABASE=database), 2
    )
    assert "heartlane[parquet]" in line
    assert {each.name for each in tmp_path.iterdir()} == {"heartlane.db", "there"}
