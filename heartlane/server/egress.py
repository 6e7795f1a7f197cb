"""Connections that the server opens by itself, to addresses that somebody typed: only to where that is allowed.

What counts is the address that is connected to, not the name: a name is resolved here, each address is checked, and
the connection goes to one of those that passed. A name that resolves otherwise the next time gains nothing by it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, NamedTuple

import httpcore

from heartlane.wire.networks import Network

RESOLVE_SECONDS: Final = 5.0
RESOLVERS: Final = 16
"""Look-ups of names under way at once: a name server that doesn't answer holds up that many names, not the server."""
PORTS_BELOW_1024: Final = frozenset({80, 443})
"""Of the ports that belong to services, those of the web alone: no news to a mail server."""
EMBEDDING: Final = tuple((ip_network(net), shift) for net, shift in (("2002::/16", 80), ("64:ff9b::/96", 0)))
"""IPv6 networks that stand for IPv4 addresses, and where in them that address is: 6to4, NAT64."""
NEVER: Final = tuple(ip_network(net) for net in ("2001::/32", "64:ff9b:1::/48", "fec0::/10", "::/96", "192.88.99.0/24"))
"""Teredo, local NAT64, site-local, IPv4-compatible, 6to4's anycast: what some version of Python takes for global."""


class Blocked(httpcore.ConnectError):
    """The connection was not made, for where it would have gone. The text is for people."""


class Allowed(NamedTuple):
    """What the setting `webhooks_allow` says: networks and host names beside the public internet."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    def covers(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the setting names this address."""
        return any(address.version == network.version and address in network for network in self.networks)


def parse_allowed(text: str) -> Allowed:
    """Networks, addresses and host names, by comma. Raises ValueError.

    >>> parse_allowed("10.1.0.0/16, hooks.internal").hosts
    frozenset({'hooks.internal'})
    """
    networks: list[Network] = []
    hosts: set[str] = set()
    for part in filter(None, (piece.strip().lower().rstrip(".") for piece in text.split(","))):
        try:
            networks.append(ip_network(part, strict=False))
        except ValueError:
            if "/" in part or ":" in part or not part.replace("-", "").replace(".", "").replace("_", "").isalnum():
                raise ValueError("must be networks such as 10.1.0.0/16, addresses or host names, by comma") from None
            hosts.add(part)
    return Allowed(tuple(networks), frozenset(hosts))


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public internet, and stands for no other that isn't.

    >>> [is_public(ip_address(text)) for text in ("1.1.1.1", "100.64.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1")]
    [True, False, False, False]
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped
        for network, shift in EMBEDDING:
            if address in network:
                inner = IPv4Address(int(address) >> shift & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
    if any(address.version == network.version and address in network for network in NEVER):
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_private
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


def problem_of(host: str, port: int, allowed: Allowed) -> str | None:
    """Why an address can't be used, as far as its text tells; None where it can. A predicate ("leads to …")."""
    plain = host.strip("[]").lower().rstrip(".")
    if plain in allowed.hosts:
        return None
    if plain == "localhost" or plain.endswith(".localhost"):
        return f"leads to this machine ({plain}); the setting webhooks_allow can name it"
    try:
        address = ip_address(plain)
    except ValueError:
        pass
    else:
        if allowed.covers(address):
            return None
        if not is_public(address):
            return f"leads to an address that is not public ({address}); the setting webhooks_allow can name it"
    if port < 1024 and port not in PORTS_BELOW_1024:
        return f"names the port {port}: below 1024 only 80 and 443 are used"
    return None


class Guard(httpcore.AsyncNetworkBackend):
    """Connects for httpcore, to checked addresses alone."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._backend = httpcore.AnyIOBackend()
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="heartlane-names")
        self._asked: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        problem = problem_of(host, port, self._allowed)
        if problem is not None:
            raise Blocked(f"The address {problem}.")
        last: Exception | None = None
        for address in self._checked(host, await self._resolve(host, port)):
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last or httpcore.ConnectError(f"{host} has no address.")

    def _checked(self, host: str, found: Sequence[str]) -> list[str]:
        if host.lower().rstrip(".") in self._allowed.hosts:
            return list(found)
        addresses = [(text, ip_address(text.partition("%")[0])) for text in found]
        good = [text for text, address in addresses if is_public(address) or self._allowed.covers(address)]
        if addresses and not good:
            raise Blocked(
                f"{host} leads to an address that is not public ({addresses[0][1]}); the setting webhooks_allow can "
                "name it."
            )
        return good

    async def _resolve(self, host: str, port: int) -> list[str]:
        key = (host, port)
        asked = self._asked.get(key)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(self._resolvers, _look_up, host, port)
            self._asked[key] = asked
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        try:
            # A look-up can't be interrupted, so that those who wait for the same name share it.
            return await asyncio.wait_for(asyncio.shield(asked), RESOLVE_SECONDS)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"The name {host} was not resolved within {RESOLVE_SECONDS:.0f} s.") from None
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise httpcore.ConnectError(f"The name {host} can't be resolved: {why}.") from None

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise Blocked("Sockets of this machine are not connected to.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Wait for no look-up any more."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
