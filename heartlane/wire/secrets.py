"""What secrets look like, and how they are masked: in the server's logs, in the command line's errors, in events.

One regular expression finds every shape. No part of it can take time that grows faster than the text does: whatever
repeats is bounded, possessive, or can't overlap with what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "***"
HIDDEN_KEYS: Final = frozenset({"authorization", "cookie", "password", "secret", "set-cookie", "token", "token_hash"})
"""Names of fields whose value is a secret whatever it looks like."""
BEGIN_KEY: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
END_KEY: Final = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"


def _word(first: str, rest: str) -> str:
    """A shape at the start of a word. The look back follows the first letter, so that this stays a literal."""
    return f"{first}(?<![A-Za-z0-9_]{first}){rest}"


# Each alternative begins with a literal character, so that the search skips quickly to where a match may begin, and has
# one group, which is the secret itself.
_BEARER: Final = r"(?:\s|%20)\s*+([^\s\"',;\\]+)"
_REST_OF_HEADER: Final = (
    r"(?i:uthorization)\\?[\"']?\s*+[:=,]\s*+(?!b?\\?[\"']?(?:(?i:bearer)|\*\*\*))b?\\?[\"']?([^\"'\\\r\n]+)"
)
_ASSIGNED: Final = r"[\"']?(?![$<{*])([^\s\"'&]{8,})"
_IN_QUERY: Final = r"(?i:[a-z_]{0,20}(?:token|secret|api_?key))=(?![$<{*])([^\s&\"'#]{8,})"
_SHAPES: Final = (
    # Heartlane's own: tokens, sessions, one-time links
    r"hl[tsl]_([A-Za-z0-9_-]{4,})",
    # Authorization: Bearer …, also in a query string; and the rest of such a header, whatever its scheme, quoted or not
    _word("b", f"(?i:earer){_BEARER}"),
    _word("B", f"(?i:earer){_BEARER}"),
    f"a{_REST_OF_HEADER}",
    f"A{_REST_OF_HEADER}",
    # scheme://user:password@host, up to the last @ of the word; a port and a path with an @ in it are no password
    r"://[^\s:/@\"']{0,256}:(?!\d{1,5}/)([^\s\"']{0,256})@",
    # password=… in a connection string or a query
    _word("p", r"(?i:assword)=([^\s&\"']+)"),
    _word("P", r"(?i:assword)=([^\s&\"']+)"),
    # …Token=…, …secret=…, …api_key=… in the query of an address: agents print such ones to log in by
    rf"\?{_IN_QUERY}",
    f"&{_IN_QUERY}",
    # Anthropic, OpenAI and those who do as they do; a digit tells a key from names such as sk-learn-contrib-examples
    _word("s", r"k-(?=[A-Za-z_-]{0,64}[0-9])([A-Za-z0-9_-]{16,})"),
    # GitHub, GitLab, Slack, npm, Hugging Face, Stripe
    _word("g", r"h[opusr]_([A-Za-z0-9]{16,})"),
    _word("g", r"ithub_pat_([A-Za-z0-9_]{16,})"),
    _word("g", r"lpat-([A-Za-z0-9_-]{16,})"),
    _word("x", r"(?:ox[abeoprs]|app)-([A-Za-z0-9-]{10,})"),
    _word("n", r"pm_([A-Za-z0-9]{30,})"),
    _word("h", r"f_([A-Za-z0-9]{30,})"),
    _word("s", r"k_(?:live|test)_([A-Za-z0-9]{16,})"),
    # Standard Webhooks
    _word("w", r"hsec_([A-Za-z0-9+/=_-]{16,})"),
    # AWS key ids, Google API keys
    _word("A", r"(?:KIA|SIA)([A-Z0-9]{16})"),
    _word("A", r"Iza([A-Za-z0-9_-]{30,})"),
    # JSON web tokens: the bounds keep runs of their letters from being gone through more than once
    r"e(?<![A-Za-z0-9_-]e)yJ([A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+)",
    # …_TOKEN=… as `env` and .env files have it, but not what only refers to a variable
    f"TOKEN={_ASSIGNED}",
    f"SECRET(?:_KEY)?={_ASSIGNED}",
    f"PASSW(?:OR)?D={_ASSIGNED}",
    f"API_KEY={_ASSIGNED}",
    f"ACCESS_KEY={_ASSIGNED}",
    f"PRIVATE_KEY={_ASSIGNED}",
    # a private key, whole or cut off
    rf"{BEGIN_KEY}((?s:.)*?)(?:{END_KEY}|\Z)",
)


def find_shapes(*first: str) -> re.Pattern[str]:
    """One pattern of every shape above, and before those the given ones, which have no group."""
    return re.compile("|".join((*first, *_SHAPES)))


def mask(pattern: re.Pattern[str], text: str) -> str:
    """The text with every match of a pattern of `find_shapes` masked, all but what tells of which kind it was."""
    return pattern.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    if match.lastindex is None:
        return MASK
    start, (first, last) = match.start(), match.span(match.lastindex)
    return match[0][: first - start] + MASK + match[0][last - start :]


_SHAPES_ALONE: Final = find_shapes()


class Redactor:
    """Masks secrets in finished text. `add` names a value that is one wherever it stands."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern = _SHAPES_ALONE

    def forget(self) -> None:
        """Know no value by itself any more."""
        self._known = set()
        self._pattern = _SHAPES_ALONE

    def add(self, values: Iterable[str]) -> None:
        """Mask these values from now on, beside those known by their shape."""
        self._known.update(value for value in values if value)
        # The longest first: where one begins with another, all of it is masked.
        self._pattern = find_shapes(*map(re.escape, sorted(self._known, key=len, reverse=True)))

    def text(self, text: str) -> str:
        """The text without secrets."""
        return mask(self._pattern, text)
