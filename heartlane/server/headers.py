"""Headers that every answer carries, whatever it answers: what a browser may not do with it.

The API's answers are data: no browser is to take them for a page, run anything in them, or show them within another
site. Pages send a policy of their own in place of this one. What a client sends that is no HTTP at all is answered by
Granian itself, with an empty body and none of these.
"""

from __future__ import annotations

from typing import Final

from heartlane.server.errors import Headers
from heartlane.server.settings import Settings

HSTS_SECONDS: Final = 180 * 86_400
"""How long a browser that was here over TLS comes by nothing else."""
DATA_ALONE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
NOWHERE_ELSE: Final = (
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


def for_machines(settings: Settings) -> Headers:
    """What the routes that machines call all day send: as little as keeps a browser from reading more into it."""
    return [*DATA_ALONE, *_over_tls(settings)]


def for_browsers(settings: Settings) -> Headers:
    """What all other answers have, unless they say otherwise."""
    return [*DATA_ALONE, *NOWHERE_ELSE, *_over_tls(settings)]


def _over_tls(settings: Settings) -> Headers:
    # Said by a server that speaks TLS itself. Where a proxy does, it is the proxy's to say, for all that is behind it.
    if settings.tls_cert is None:
        return []
    return [(b"strict-transport-security", b"max-age=%d" % HSTS_SECONDS)]
