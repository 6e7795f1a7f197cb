"""What is read of foreign JSON: a value of another type than expected counts as one that isn't there."""

from __future__ import annotations

from typing import Any


def text_of(value: Any, *names: str) -> str:
    """A text, found by going through objects by these names; "" where there is none.

    >>> text_of({"user": {"login": "ada"}}, "user", "login")
    'ada'
    """
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def object_of(value: Any, *names: str) -> dict[str, Any]:
    """An object, found by going through objects by these names; empty where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def list_of(value: Any, *names: str) -> list[Any]:
    """An array, found by going through objects by these names; empty where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []
