"""Which repository an address leads to, however it is written: for the browser, for HTTPS, for SSH."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_SCP: Final = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[^/\s].*)")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Repository(NamedTuple):
    """A repository at a host; both in lower case, as GitHub tells none apart by case."""

    host: str
    name: str


def repository_of(url: str | None) -> Repository | None:
    """The repository `owner/name` of an address; None for an address of anything else.

    >>> repository_of("git@github.com:Acme/shop.git")
    Repository(host='github.com', name='acme/shop')
    >>> repository_of("https://github.com/acme/shop/") == repository_of("ssh://git@github.com:22/acme/shop.git")
    True
    >>> repository_of("https://github.com/acme") is None
    True
    """
    if not url:
        return None
    if "://" in url:
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        host, path = parts.hostname or "", parts.path
    else:
        match = _SCP.fullmatch(url)
        host, path = (match["host"], match["path"]) if match else ("", "")
    owner, _, name = path.strip("/").partition("/")
    name = name.removesuffix(".git")
    if not host or not _NAME.fullmatch(owner) or not _NAME.fullmatch(name):
        return None
    return Repository(host.lower().removeprefix("www."), f"{owner}/{name}".lower())


def host_of_api(api_url: str) -> str:
    """The host of the repositories that an API at this address has.

    >>> host_of_api("https://api.github.com"), host_of_api("https://git.example.com/api/v3")
    ('github.com', 'git.example.com')
    """
    return (urlsplit(api_url).hostname or "").lower().removeprefix("api.")
