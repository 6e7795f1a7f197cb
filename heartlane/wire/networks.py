"""Networks of addresses: as people write them, and whether an address lies within."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


@lru_cache(maxsize=1024)
def parse_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks by comma, as networks. Raises ValueError with a plain reason.

    >>> parse_networks("10.0.0.0/8, 2001:db8::1")
    (IPv4Network('10.0.0.0/8'), IPv6Network('2001:db8::1/128'))
    """
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.0/8, by comma") from None


@lru_cache(maxsize=4096)
def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether the address lies in one of the networks; what is no address lies in none.

    An IPv4 address that came mapped into IPv6 counts as what it is.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    plain = (parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None) or parsed
    return any(plain in network for network in networks)
