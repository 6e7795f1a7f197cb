"""Spans of time as people type them: `90d`, `12h`, `15m`, `30s`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from heartlane.cli.errors import CommandError

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(flag: str, text: str) -> timedelta:
    """A number and its unit. Raises CommandError, naming the flag.

    >>> parse_duration("--expires", "90d")
    datetime.timedelta(days=90)
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text.strip().lower())
    if match is None:
        raise CommandError(f"{flag} must be a number and one of s, m, h, d, w, such as 15m or 90d; not {text!r}")
    try:
        return timedelta(**{UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise CommandError(f"{flag} must be at most a hundred years, not {text!r}") from None
