"""Every earlier schema, with data in it, becomes the newest one. New revisions are tested by themselves."""

from __future__ import annotations

import pytest
from alembic.script import ScriptDirectory

from heartlane.lanes.commands import Command, Report
from heartlane.lanes.run import RUN_COLUMNS, Event
from heartlane.store.batch import Outcome
from heartlane.store.check import check
from heartlane.store.columns import metadata
from heartlane.store.external import key_of_url
from heartlane.store.migrations import runner
from heartlane.store.schema import runs
from heartlane.store.store import Store
from heartlane.store.tokens import find
from heartlane.store.upgrade import HEAD, upgrade, upgrade_async
from tests.store.fleet import Fleet, done
from tests.upgrade import rows as history
from tests.upgrade.database import fill, migrate_to, neutral, read, tables

REVISIONS = runner.revisions()


def test_the_newest_revision_is_the_one_that_servers_ask_for() -> None:
    assert REVISIONS[-1] == HEAD


def test_revisions_stand_in_one_line() -> None:
    scripts = ScriptDirectory.from_config(runner.config())
    assert len(scripts.get_heads()) == len(scripts.get_bases()) == 1
    assert not [each.revision for each in scripts.walk_revisions() if each.is_branch_point or each.is_merge_point]


def test_history_tells_of_revisions_that_are_there_and_ends_with_the_tables_of_today() -> None:
    assert set(history.ROWS) <= set(REVISIONS)
    assert set(history.rows_at(HEAD, REVISIONS)) == set(metadata.tables)


def test_a_run_is_read_by_the_order_of_its_columns() -> None:
    assert [column.name for column in runs.c] == list(RUN_COLUMNS)


@pytest.fixture(params=REVISIONS)
async def old(request: pytest.FixtureRequest, empty_database_url: str) -> tuple[str, str]:
    """A database as it was at each revision, with rows of its time: the URL, and the revision."""
    revision: str = request.param
    await migrate_to(empty_database_url, revision)
    await fill(empty_database_url, history.rows_at(revision, REVISIONS))
    return empty_database_url, revision


async def test_the_rows_of_each_revision_fill_its_tables(old: tuple[str, str]) -> None:
    """A revision that adds a table or a column has rows for it in `tests/upgrade/rows.py`."""
    url, revision = old
    given = history.rows_at(revision, REVISIONS)
    assert set(given) == await tables(url)
    for table, rows in given.items():
        # `xid` is PostgreSQL's own: it tells which transaction wrote a row.
        assert (await read(url, table))[0].keys() - {"xid"} == rows[0].keys(), table


async def test_no_row_is_lost_or_changed_on_the_way_to_the_newest_schema(old: tuple[str, str]) -> None:
    url, revision = old
    before = await upgrade_async(url)
    assert before.current == revision
    assert before.pending == REVISIONS[REVISIONS.index(revision) + 1 :]
    assert (await upgrade_async(url)).pending == []
    for table, rows in history.rows_at(revision, REVISIONS).items():
        found = await read(url, table)
        gone = {column for name, column in history.GONE if name == table}
        assert len(found) == len(rows), table
        for row in rows:
            kept = {name: neutral(value) for name, value in row.items() if name not in gone}
            assert any(kept.items() <= each.items() for each in found), (table, kept)


async def test_the_newest_version_works_on_with_it(old: tuple[str, str]) -> None:
    url, _ = old
    await upgrade_async(url)
    store = await Store.open(url)
    try:
        await _work_on(Fleet(store, history.ACCOUNT, history.PROJECT))
    finally:
        await store.close()


async def _work_on(fleet: Fleet) -> None:
    async def on(run_id: str, command: Command) -> Outcome:
        return await fleet.store.ledger.submit(run_id, command)

    # What an earlier version's worker holds it still holds, and what it sends again is still known as such.
    replay = await on(history.HELD, Report("w1", attempt=2, seq=7))
    assert getattr(replay.decision, "duplicate", False)
    held = done(replay)
    assert (held.state, held.phase, held.title) == ("running", "tests", "Läne 1")
    ship = Event("ship_complete", {"pr_url": "https://git.test/2"})
    shipped = done(await on(history.HELD, Report("w1", attempt=2, seq=8, events=[ship])))
    assert (shipped.state, shipped.event_count) == ("shipped", 6)
    log = await fleet.log(shipped)
    assert [event.seq for event in log] == [1, 2, 3, 4, 5, 6]
    assert log[4].payload == {"line": "\0 and ü"}
    # Its ticket and the lane behind it move along, and the queue keeps its order.
    assert (await fleet.read_ticket(history.TICKET_OPEN)).roles_json == '{"backend":"done","merged":"pending"}'
    claimed = [await fleet.claim_next("w9", labels={"os": "linux"}) for _ in range(3)]
    assert [run and run.id for run in claimed] == [history.QUEUED, history.WAITING, None]
    fleet.store.clock.advance((history.LATER - await fleet.store.now()).total_seconds())
    released = await fleet.claim_next("w9")
    assert released is not None
    assert (released.id, released.attempt) == (history.RELEASED, 2)
    assert (await find(fleet.store, history.TOKEN)).name == "ci"
    # New rows go on behind the old ones.
    (new,) = await fleet.lanes()
    assert new.number == 7


def test_an_upgraded_database_has_nothing_wrong_with_it(empty_database_url: str) -> None:
    assert upgrade(empty_database_url).current is None
    assert check(empty_database_url).problems == []


async def test_tickets_with_the_same_address_keep_one_each(empty_database_url: str) -> None:
    await migrate_to(empty_database_url, "0001")
    rows = history.rows_at("0001", REVISIONS)
    url = "https://tracker.test/1"
    first, second = rows["tickets"]
    third = {**second, "id": history.TICKET_IMPORTED}
    tickets_before = [{**each, "external_url": url} for each in (first, second, third)]
    await fill(empty_database_url, {**rows, "tickets": tickets_before})
    await upgrade_async(empty_database_url)
    found = {row["id"]: row for row in await read(empty_database_url, "tickets")}
    urls = [found[each]["external_url"] for each in (first["id"], second["id"], third["id"])]
    assert urls == [url, f"{url}#{second['id']}", f"{url}#{third['id']}"]
    assert [row["external_key"] for row in found.values()] == [
        key_of_url(row["external_url"]) for row in found.values()
    ]
