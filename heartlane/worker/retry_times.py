"""When an agent says that it can be tried again: an instant in its words, found and turned into a time.

    Claude AI usage limit reached|1749924000            epoch seconds, or milliseconds
    resets 9am (Europe/Berlin)                          the next 9 o'clock there
    try again at Aug 31st, 2026 7:08 AM                 a date and a time of this machine's zone
    Your quota will reset after 2h30m10s                so long from now
    "resets_in_seconds": 5400, "retryDelay": "36s"      from an answer that was passed on

Nothing here reads a clock: what "now" is, and in which zone the machine lives, comes with the call.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

LOOKED_AT_MAX: Final = 8_000
AHEAD_MAX: Final = timedelta(days=370)
"""A time further away is a misreading."""
JUST_PASSED: Final = timedelta(minutes=5)
"""A time of day that passed so short a while ago means today: the agent took its time to say it."""

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# What zones are called by their letters, in hours from UTC. Names such as Europe/Berlin are looked up.
_LETTERS: Final = {
    "utc": 0, "gmt": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
    "cet": 1, "cest": 2, "bst": 1, "jst": 9, "ist": 5.5,
}  # fmt: skip

_AGAIN: Final = (
    r"(?:try(?:ing)? again|retry(?:ing)?|reset(?:s|ting)?|available(?: again)?|renews?|wait|come back|until)"
)
_EPOCH: Final = (
    r"(?:\||reset\w*[\"' ]{0,3}(?:at)?[\"' ]{0,3}[:=]?[\"' ]{0,3}|retry[_ ]?at[\"': =]{1,4})(1\d{9}(?:\d{3})?)\b"
)
_ISO: Final = (
    _AGAIN + r"[^\d\n]{0,40}(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?) ?(Z|UTC|GMT|[+-]\d\d:?\d\d)?"
)
_SECONDS: Final = (
    r"(?:resets?_in_seconds|retry[ _-]?after(?:[ _-]?(?:seconds|s))?)[\"' ]{0,3}[:=]?[\"' ]{0,3}"
    r"(\d{1,8})(?:\.\d+)?(?![\w.:])"
)
_UNIT: Final = r"\d+(?:\.\d+)?\s*(?:days?|d|hours?|hrs?|hr|h|minutes?|mins?|min|m|seconds?|secs?|sec|ms|s)(?![a-z])"
_IN: Final = (
    rf"{_AGAIN}\w*\s*(?:again\s+)?(?:in|after|for|delay)?\s*:?\s*(?:about\s+)?"
    rf"({_UNIT}(?:[\s,]*(?:and\s+)?{_UNIT})*)|retryDelay\W{{1,6}}({_UNIT})"
)
_PART: Final = r"(\d+(?:\.\d+)?)\s*(ms|[dhms])"
_PARTS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_MONTH: Final = r"(?P<month>" + "|".join(_MONTHS) + r")[a-z]*\.?"
_AT: Final = (
    _AGAIN + r"\w*\s*(?:at|on|after|by)?\s*:?\s*"
    r"(?:(?P<weekday>" + "|".join(_DAYS) + r")[a-z]*,?\s+)?"
    r"(?:(?:" + _MONTH + r"\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?|(?P<day_first>\d{1,2})(?:st|nd|rd|th)?\s+"
    + _MONTH.replace("<month>", "<month_second>") + r")(?:,?\s+(?P<year>\d{4}))?,?\s*)?"
    r"(?:(?P<tomorrow>tomorrow),?\s*)?(?:at\s+)?"
    r"(?:(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::\d\d)?)?\s*(?P<half>[ap])\.?m\b\.?"
    r"|(?P<hour24>\d{1,2}):(?P<minute24>\d\d)(?::\d\d)?)"
    r"\s*(?:\(?(?P<zone>[A-Za-z]+(?:/[A-Za-z_+-]+\d*)+|(?:UTC|GMT)(?:[+-]\d{1,2})?|[A-Z]{3,4})\b\)?)?"
)  # fmt: skip
_LATE: Final = datetime.max.replace(tzinfo=UTC)


def find_time(text: str, at: datetime) -> datetime | None:
    """The time that a text says to try again at, in UTC; None where it says none.

    `at` is when the text was printed, aware, in the zone of the machine that the agent runs on: a time of day without a
    zone is taken in that one.

    >>> find_time("try again at 3:45 PM", datetime(2026, 3, 1, 14, 0, tzinfo=UTC)).isoformat()
    '2026-03-01T15:45:00+00:00'
    """
    if len(text) > LOOKED_AT_MAX:
        text = f"{text[: LOOKED_AT_MAX // 2]} {text[-LOOKED_AT_MAX // 2 :]}"
    for read in (_epoch, _iso, _seconds, _clock, _duration):
        try:
            found = read(text, at)
        except (ValueError, OverflowError):  # the 31st of February, the year 0, an hour 25
            continue
        if found is not None and found.year < _LATE.year and at - timedelta(days=1) < found < at + AHEAD_MAX:
            return found.astimezone(UTC)
    return None


def from_epoch(value: object) -> datetime | None:
    """The instant of a number of seconds (or milliseconds) since 1970, or of an RFC 3339 text; None for all else."""
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value)
        except ValueError:
            return None
        return read.astimezone(UTC) if read.tzinfo is not None else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e9 <= value < 1e14:
        return None
    return datetime.fromtimestamp(value / 1000 if value >= 1e11 else value, UTC)


def stamp(time: datetime) -> str:
    """A time as the wire has it: RFC 3339, UTC, milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _search(pattern: str, text: str) -> re.Match[str] | None:
    # Compiled by the module `re` when they are first needed: most runs never wait for anything.
    return re.search(pattern, text, re.IGNORECASE)


def _epoch(text: str, at: datetime) -> datetime | None:
    found = _search(_EPOCH, text)
    return from_epoch(int(found[1])) if found else None


def _iso(text: str, at: datetime) -> datetime | None:
    found = _search(_ISO, text)
    if found is None:
        return None
    read = datetime.fromisoformat(found[1])
    zone = (found[2] or "").upper()
    if zone in ("Z", "UTC", "GMT"):
        return read.replace(tzinfo=UTC)
    return datetime.fromisoformat(found[1] + zone) if zone else read.replace(tzinfo=at.tzinfo)


def _seconds(text: str, at: datetime) -> datetime | None:
    found = _search(_SECONDS, text)
    return at + timedelta(seconds=int(found[1])) if found else None


def _duration(text: str, at: datetime) -> datetime | None:
    found = _search(_IN, text)
    if found is None:
        return None
    parts = re.findall(_PART, found[1] or found[2], re.IGNORECASE)
    return at + timedelta(seconds=sum(float(count) * _PARTS[unit.lower()] for count, unit in parts))


def _clock(text: str, at: datetime) -> datetime | None:
    found = _search(_AT, text)
    if found is None:
        return None
    hour = int(found["hour"] or found["hour24"])
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"].lower() == "p" else 0)
    local = at.astimezone(_zone(found["zone"], at))
    read = local.replace(hour=hour, minute=int(found["minute"] or found["minute24"] or 0), second=0, microsecond=0)
    month = found["month"] or found["month_second"]
    if month:
        day = int(found["day"] or found["day_first"])
        read = read.replace(month=_MONTHS.index(month.lower()) + 1, day=day)
        if found["year"]:
            return read.replace(year=int(found["year"]))
        return read if read > local - timedelta(days=1) else read.replace(year=read.year + 1)
    if found["tomorrow"]:
        return read + timedelta(days=1)
    if found["weekday"]:
        read += timedelta(days=(_DAYS.index(found["weekday"].lower()) - read.weekday()) % 7)
        return read if read > local - JUST_PASSED else read + timedelta(days=7)
    return read if read > local - JUST_PASSED else read + timedelta(days=1)


def _zone(name: str | None, at: datetime) -> tzinfo | None:
    """The zone of that name; the machine's own where the name is unknown, or unknown to this machine."""
    if not name:
        return at.tzinfo
    if "/" in name:
        from zoneinfo import ZoneInfo  # noqa: PLC0415 - rarely needed, and not free to import

        try:
            return ZoneInfo(name)
        except (OSError, ValueError, KeyError):
            return at.tzinfo
    letters, sign, hours = re.fullmatch(r"([A-Za-z]+)([+-]?)(\d*)", name).groups()  # type: ignore[union-attr]
    known = _LETTERS.get(letters.lower())
    if known is None:
        return at.tzinfo
    return timezone(timedelta(hours=known + (int(hours) * (-1 if sign == "-" else 1) if hours else 0)))
