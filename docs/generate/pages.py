"""The pages with generated blocks: which blocks there are, and a page's text with all of them written anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from docs.generate import api, cli, errors, events, metrics, news, rules, settings, worker

ROOT: Final = Path(__file__).resolve().parents[2]

BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings.reference,
    "rate limits": settings.rate_limits,
    "errors": errors.reference,
    "worker events": events.of_workers,
    "server events": events.of_the_server,
    "metrics": metrics.reference,
    "cli": cli.reference,
    "api": api.reference,
    "states and commands": rules.states_and_commands,
    "placeholders": worker.placeholders,
    "lane variables": worker.lane_variables,
    "exit codes": worker.exit_codes,
    "news": news.types,
}
"""Name of a block → what writes it. Each stands in one page at least."""

_BLOCK: Final = re.compile(
    r"^(?P<begin><!-- begin (?P<name>[a-z ]+): written by `make docs` -->\n)"
    r"(?P<text>.*?)"
    r"(?P<end>^<!-- end (?P=name) -->$)",
    re.MULTILINE | re.DOTALL,
)


def pages() -> Iterator[Path]:
    """Every page of the documentation, the README and the changelog."""
    yield ROOT / "README.md"
    yield ROOT / "CHANGELOG.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def blocks_in(page: str) -> list[str]:
    """The names of a page's blocks, in order."""
    return [found["name"] for found in _BLOCK.finditer(page)]


def written_anew(page: str) -> str:
    """The page's text with every block as it has to be now. Raises KeyError for a block that nothing writes."""

    def written(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{BLOCKS[found['name']]().strip()}\n\n{found['end']}"

    return _BLOCK.sub(written, page)
