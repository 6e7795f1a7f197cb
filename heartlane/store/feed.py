"""Who hears of what was committed: claims that wait for a lane, on this server and, over NOTIFY, on every other.

An announcement carries ids alone. Whoever hears it reads the database, so that a lost one loses nothing but time; those
who wait ask again by themselves every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson
import structlog

from heartlane.store.batch import Announcement, Opening

log = structlog.get_logger(__name__)

CHANNEL: Final = "heartlane"
PAYLOAD_MAX_BYTES: Final = 7_900
"""PostgreSQL takes notifications below 8,000 bytes; what doesn't fit is left out, and hearers look for themselves."""

EVERYTHING: Final = Announcement()
"""Something may have happened that wasn't heard: look at everything."""


class Feed:
    """Hands announcements to whoever has subscribed, in this process."""

    def __init__(self) -> None:
        self._hearers: list[Callable[[Announcement], None]] = []

    def subscribe(self, hearer: Callable[[Announcement], None]) -> Callable[[], None]:
        """Call `hearer` with every announcement, from the event loop; the answer ends it."""
        self._hearers.append(hearer)
        return lambda: self._hearers.remove(hearer)

    def publish(self, announcement: Announcement) -> None:
        """Tell every hearer. A hearer that fails is logged and doesn't keep the others from hearing."""
        for hearer in list(self._hearers):
            try:
                hearer(announcement)
            except Exception:
                log.exception("hearer_failed")


def encode(server_id: str, announcement: Announcement) -> str:
    """An announcement as a NOTIFY payload. What doesn't fit is left out; `EVERYTHING` stands for it then."""
    payload = {"s": server_id, "o": [list(opening) for opening in announcement.openings], "r": announcement.run_ids}
    if announcement.plan_ids:
        payload["p"] = announcement.plan_ids
    text = orjson.dumps(payload)
    if len(text) > PAYLOAD_MAX_BYTES:
        text = orjson.dumps({"s": server_id})
    return text.decode()


def decode(server_id: str, payload: str) -> Announcement | None:
    """The announcement of a NOTIFY payload; None for this server's own, EVERYTHING for one that can't be read."""
    try:
        sent = orjson.loads(payload)
        if sent["s"] == server_id:
            return None
        if "o" not in sent:
            return EVERYTHING
        return Announcement([Opening(*opening) for opening in sent["o"]], sent["r"], tuple(sent.get("p", ())))
    except (ValueError, KeyError, TypeError):
        return EVERYTHING
