"""By which address a browser reaches this server, and whether what it sends comes from the server's own pages.

A web site that a person visits can have the browser send requests here. Two things are refused because of that, both
only where no bearer token was sent, which no other site has:

- A host name that isn't this server's (DNS rebinding: a site lets its own name point here, and then counts as the same
  site). Names that no site out there can have are this server's anyway: addresses, `localhost`, names without a dot,
  and those below domains that are never given away. Any other name is told by `public_url` or `allowed_hosts`.
- A change that another site's page sends (`is_own`): the browser itself says where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from heartlane.server.errors import ApiError, Issue
from heartlane.server.limits import is_trusted_peer
from heartlane.server.settings import Settings

Scope = Mapping[str, Any]

PRIVATE_DOMAINS: Final = ("localhost", "local", "internal", "test", "lan", "home.arpa")
"""Nobody can register a name below these (RFC 6761, 6762, 8375, and by ICANN's word `internal`); `lan` by custom."""
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What probes ask, by whatever name; it needs no token either."""
HOST_MAX: Final = 300
"""Bytes of a `Host` header that is looked at."""


class Origins:
    """Reads the address by which a request came: its scheme, its host, and the site it was sent from."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = settings.trusted_proxies
        self._public = settings.public_url
        public = urlsplit(settings.public_url or "")
        self._public_scheme, self._public_host = public.scheme, public.netloc
        self._any = "*" in settings.allowed_hosts
        self._names = {settings.host.lower(), public.hostname or "", *settings.allowed_hosts}
        self._below = tuple(name[1:] for name in settings.allowed_hosts if name.startswith("*."))

    def host(self, scope: Scope) -> str:
        """The `Host` of the request in lower case, with its port; "" where there is none that can be one."""
        return _header(scope, b"host", HOST_MAX).lower()

    def is_https(self, scope: Scope) -> bool:
        """Whether the browser speaks TLS, to this server or to the proxy in front of it.

        A proxy's word counts where it is trusted. The public address is known to be what it is.
        """
        if scope.get("scheme") == "https" or (self._public_scheme == "https" and self.host(scope) == self._public_host):
            return True
        if not is_trusted_peer(scope, self._trusted):
            return False
        said = _header(scope, b"x-forwarded-proto", 100)
        return said.rpartition(",")[2].strip().lower() == "https"

    def base_url(self, scope: Scope) -> str:
        """Where people reach this server: `public_url`, else the address that this request was sent to."""
        if self._public is not None:
            return self._public
        scheme = "https" if self.is_https(scope) else "http"
        return f"{scheme}://{self.host(scope) or 'localhost'}"

    def refuse_strange_host(self, scope: Scope) -> None:
        """Raise the 400 of a request that came by a name that is not this server's."""
        if self._any or scope["path"] in OPEN_PATHS:
            return
        host = self.host(scope)
        name = _name_of(host)
        if name and (name in self._names or name.endswith(self._below) or _is_private(name)):
            return
        raise ApiError(
            "INVALID_REQUEST",
            f"This server doesn't go by the name {name or host[:100]!r}. If it should, set HEARTLANE_PUBLIC_URL to the "
            "address that people use, or add the name to HEARTLANE_ALLOWED_HOSTS.",
            issues=[Issue("Host", "must be a name of this server")],
        )

    def is_own(self, scope: Scope, *, unknown: bool) -> bool:
        """Whether the request was sent by one of this server's own pages; `unknown` where the client doesn't say.

        Browsers say so in `Sec-Fetch-Site` (over TLS and on this machine) and in `Origin` (with every change).
        """
        site = _header(scope, b"sec-fetch-site", 100)
        if site and site != "same-origin":
            return False
        origin = _header(scope, b"origin", HOST_MAX).lower()
        if origin:
            host = urlsplit(origin).netloc if origin != "null" else ""
            return bool(host) and host in (self.host(scope), self._public_host)
        return bool(site) or unknown


def _header(scope: Scope, name: bytes, most: int) -> str:
    """The one value of a header; "" where it is missing, too long, or there more than once."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 and len(values[0]) <= most else ""


def _name_of(host: str) -> str:
    """The name or address within a `Host`, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


def _is_private(name: str) -> bool:
    if "." not in name and not name.startswith("["):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return name.endswith(tuple(f".{domain}" for domain in PRIVATE_DOMAINS))
    return True
