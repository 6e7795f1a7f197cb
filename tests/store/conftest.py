"""Stores beside the one of `tests/conftest.py`: of another make, or a second one on the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog

from heartlane.store.store import Store
from tests.store.fleet import Fleet

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    """A planted fault is logged with its traceback, in a few lines rather than with every local variable."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def open_store(database_url: str) -> AsyncIterator[OpenStore]:
    """Opens stores on one database, on each engine; those that the test leaves open are closed at its end."""
    opened: list[Store] = []

    async def open_one(**options: Any) -> Store:
        opened.append(await Store.open(database_url, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        if not store.ledger._closing:
            await store.close()


@pytest.fixture
async def fleet(store: Store) -> Fleet:
    """An account with a project on the store."""
    return await Fleet.found(store)
