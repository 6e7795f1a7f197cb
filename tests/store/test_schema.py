"""What a column holds is what it was given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from heartlane.store.columns import FLOAT_EXACT_MICROS, from_micros, to_micros
from heartlane.store.ids import new_id
from heartlane.store.schema import accounts
from heartlane.store.store import Store

FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)


@given(st.datetimes(timezones=st.just(UTC)))
@example(LAST)
@example(FIRST - timedelta(microseconds=1))
@example(datetime(2999, 12, 31, 23, 59, 59, 999_999, UTC))
def test_a_moment_in_microseconds_comes_back_to_the_microsecond(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment


@given(st.integers(0, FLOAT_EXACT_MICROS))
@example(FLOAT_EXACT_MICROS - 1)
@example(FLOAT_EXACT_MICROS)
def test_microseconds_come_back_through_a_moment(micros: int) -> None:
    assert to_micros(from_micros(micros)) == micros


@pytest.mark.parametrize("moment", [FIRST, datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC), LAST])
async def test_a_moment_comes_back_from_the_database(store: Store, moment: datetime) -> None:
    account_id = new_id()
    async with store.writing() as tx:
        await tx.conn.execute(insert(accounts).values(id=account_id, name="account", created_at=moment))
    async with store.reading() as conn:
        found = (await conn.execute(select(accounts.c.created_at).where(accounts.c.id == account_id))).scalar_one()
    assert found == moment
    assert found.tzinfo == UTC
