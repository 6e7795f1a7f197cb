"""What a lane has used: tokens and money, as far as its agent says so. Pure.

A worker tells what its attempt has used *so far*, in the `usage` object of any event's payload, or beside the result
in the payload of `ship_complete` and `error`. Figures count from the attempt's start, so one that is told twice, late
or in another order is never counted twice: of each figure the highest counts. A run's own figures are the sums of its
attempts'.

Money is whole micro-dollars inside, so that sums are exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from heartlane.lanes import bounds

TOKENS_MAX: Final = 10**13
"""Most tokens of one kind that an attempt can have used; more is taken for nonsense and left out."""
USD_MAX: Final = 10**6
"""Most dollars that an attempt can have cost; the same."""
MICROS: Final = 1_000_000
NAMED_IN: Final = frozenset({"ship_complete", "error"})
"""Event types whose payload has the figures beside everything else."""


class Usage(NamedTuple):
    """Tokens and micro-dollars used, each None where it isn't known.

    cached_tokens   read from the provider's cache; within `input_tokens` or beside them, as the provider counts
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost_micros: int | None = None

    @property
    def tokens(self) -> int:
        """What budgets count: input and output."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)


NOTHING: Final = Usage()


def read_usage(payload: Mapping[str, Any]) -> Usage:
    """The figures that an object says; what is no possible figure is left out.

    >>> read_usage({"input_tokens": 1200, "output_tokens": -3, "cost_usd": 0.25})
    Usage(input_tokens=1200, output_tokens=None, cached_tokens=None, cost_micros=250000)
    """
    return Usage(
        _count(payload.get("input_tokens")),
        _count(payload.get("output_tokens")),
        _count(payload.get("cached_tokens")),
        to_micros_usd(payload.get("cost_usd")),
    )


def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= TOKENS_MAX:
        return None
    return value


def to_micros_usd(value: Any) -> int | None:
    """Dollars as whole micro-dollars; None for what is no amount between 0 and USD_MAX.

    >>> to_micros_usd(1.5), to_micros_usd(float("inf")), to_micros_usd(True), to_micros_usd(-1)
    (1500000, None, None, None)
    """
    if type(value) not in (int, float) or not 0 <= value <= USD_MAX:  # no NaN, which is neither
        return None
    micros: int = round(value * MICROS)
    return micros


def usage_in(event_type: str, payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object in an event's payload that may hold figures, or None."""
    said = payload.get("usage")
    if isinstance(said, dict):
        return said
    return payload if event_type in NAMED_IN else None


def highest(old: Usage, new: Usage) -> Usage:
    """Of each figure the higher one."""
    return Usage(*(b if a is None else a if b is None else max(a, b) for a, b in zip(old, new, strict=True)))


def plus(total: Usage, old: Usage, new: Usage) -> Usage:
    """A total in which an attempt's figures `old` have become `new`."""
    return Usage(*(t if n is None else (t or 0) + n - (o or 0) for t, o, n in zip(total, old, new, strict=True)))


def encode(usage: Usage) -> str:
    """As a column holds it: a JSON array in the order of `Usage`."""
    return json.dumps(list(usage), separators=(",", ":"))


def decode(text: str | None) -> Usage:
    """The usage of `encode`; nothing known for None."""
    return NOTHING if text is None else Usage(*json.loads(text))


def name_in(payload: Mapping[str, Any], key: str) -> str | None:
    """A name (`agent`, `model`) in a payload, cut to what a column holds; None where there is none."""
    value = payload.get(key)
    if not isinstance(value, str):
        return None
    return value.replace("\0", "").strip()[: bounds.AGENT_NAME_MAX] or None
