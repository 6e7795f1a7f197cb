"""Every type of news that a webhook can choose, from the table of the code."""

from __future__ import annotations

from docs.generate.markdown import code, table
from heartlane.lanes.news import NEWS_TYPES, TEST


def types() -> str:
    """A table of all types but the test."""
    return table(["type", "tells"], [[code(name), text] for name, text in NEWS_TYPES.items() if name != TEST])
