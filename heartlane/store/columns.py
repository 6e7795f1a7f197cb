"""What columns are made of, the same on both engines: times, ids, growing keys, and the names of constraints."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Dialect, Integer, MetaData, String, Uuid
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
FLOAT_EXACT_MICROS: Final = 2**32 * 1_000_000
"""Until the year 2106, seconds as a double are fine enough to tell one microsecond from the next."""


def to_micros(moment: datetime) -> int:
    """Microseconds since the epoch of an aware datetime: how SQLite stores time."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC datetime of `to_micros`."""
    if 0 <= micros < FLOAT_EXACT_MICROS:
        return datetime.fromtimestamp(micros / 1e6, UTC)  # the quicker way, as every read run has some of them
    return EPOCH + micros * MICROSECOND


class Timestamp(TypeDecorator[datetime]):
    """An aware UTC datetime: `timestamptz` on PostgreSQL, microseconds since the epoch on SQLite."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return to_micros(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return from_micros(value) if isinstance(value, int) else value.astimezone(UTC)


def guid() -> TypeEngine[str]:
    """A lower-case UUID string: `uuid` on PostgreSQL, text on SQLite."""
    return Uuid(as_uuid=False).with_variant(String(36), "sqlite")


def big_key() -> TypeEngine[int]:
    """A growing 64-bit key; SQLite knows only INTEGER as its row id."""
    return BigInteger().with_variant(Integer(), "sqlite")


NAMING: Final = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}
metadata = MetaData(naming_convention=NAMING)
