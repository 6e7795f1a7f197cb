"""Request bodies from bytes to values, and JSON back: what every route reads before its model looks at it.

The parser takes JSON (RFC 8259) in UTF-8 and nothing beside it: no NaN or Infinity, no number too large for a double,
no lone surrogates, no name twice in one object, no nesting deeper than 200.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import jiter
import orjson

DEPTH_MAX: Final = 200
"""Nesting that jiter reads; deeper is refused before anything is built."""

_OVERFLOW_EXPONENT: Final = b"0e000"
_OVERFLOW_DIGITS: Final = b"0" * 200
_DIGITS_TO_ZERO: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x65 if byte == 0x45 else byte for byte in range(256))


class BadJson(ValueError):
    """The body is not JSON as the API takes it. The text is a predicate ("is …"), fit for an issue's message."""


def parse_json(body: bytes) -> Any:
    """The value of a JSON text. Raises BadJson, saying what is wrong and where.

    Integers keep every digit (up to 4,300 of them); other numbers become doubles, and one that no double can hold is
    refused.
    """
    try:
        value = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise BadJson(_say(body, str(error))) from None
    if _may_overflow(body) and _overflows(value):
        raise BadJson("has a number that is too large")
    return value


def dump_json(value: Any) -> str:
    """Compact JSON text of any parsed value. Integers beyond 64 bits, which orjson refuses, go by the standard one."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _say(body: bytes, problem: str) -> str:
    if not body.strip():
        return "is required: a JSON object"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 (at byte {error.start})"
    if problem.startswith("Detected duplicate key"):
        return f"names a field twice: {problem.removeprefix('Detected duplicate key ')}"
    if problem.startswith("recursion limit exceeded"):
        return f"is nested deeper than {DEPTH_MAX} levels"
    return f"is not valid JSON: {problem}"


def _may_overflow(body: bytes) -> bool:
    """Whether any number may be beyond a double: quick, and never wrong when it says no.

    That takes an exponent of three digits or, with a shorter one, over 200 digits in a row. With every digit turned
    into 0, E into e and the + signs gone, both are plain substrings, many times quicker to look for than by a regular
    expression. Text in strings may look alike, so a yes is only a maybe.
    """
    flat = body.translate(_DIGITS_TO_ZERO, b"+")
    return _OVERFLOW_EXPONENT in flat or (len(flat) > len(_OVERFLOW_DIGITS) and _OVERFLOW_DIGITS in flat)


def _overflows(value: Any) -> bool:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, float):
            if math.isinf(item):
                return True
        elif isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return False
