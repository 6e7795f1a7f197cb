"""Rate limits per route and client address, and who the client is when a proxy stands in front.

A limit is a fixed window: it opens with the first request of an address and ends its length later, all at once, which
is what `RateLimit-Reset` and `Retry-After` promise. The figures are `limits` items and the counters a `limits` storage,
so that a storage that replicas share can take this one's place; this one exists because the library's own memory
storage starts a thread to sweep up to a hundred times a second and costs several times as much for each request.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, NamedTuple

from limits import RateLimitItem, RateLimitItemPerMinute, parse
from limits.storage import Storage

from heartlane.server.errors import ApiError, Headers
from heartlane.wire.networks import Network, is_within

DEFAULT_ROUTE: Final = "default"
ROUTES: Final[Mapping[str, tuple[int, str]]] = {
    "report": (600, "POST /api/agents/runs/{id}/events"),
    "plan": (30, "POST /api/agents/plan"),
    "approve": (30, "POST /api/agents/plans/{id}/approve"),
    "reject": (30, "POST /api/agents/plans/{id}/reject"),
    "claim": (1_200, "POST /api/agents/runs/claim and /api/agents/runs/{id}/claim"),
    DEFAULT_ROUTE: (1_200, "everything else under /api, together"),
}
"""Name of each limited route → requests a minute for one client address, and what it covers."""
AMOUNT_MAX: Final = 1_000_000_000
WINDOWS_MAX: Final = 100_000
"""Windows kept at once; beyond it the oldest is forgotten, which only ever lets an address do more."""
FORWARDED_HOPS_MAX: Final = 32
"""Right-most entries of `X-Forwarded-For` that are looked at."""


class RateLimits(NamedTuple):
    """What the setting `rate_limits` says: the limit of each route, None for a route without one."""

    text: str
    routes: Mapping[str, RateLimitItem | None]

    def __str__(self) -> str:
        return self.text


def parse_rate_limits(text: str) -> RateLimits:
    """Read `on`, `off`, or figures for some routes, the others keeping theirs. Raises ValueError with a plain reason.

    >>> limits = parse_rate_limits("report=6000/minute, plan=off")
    >>> limits.routes["report"], limits.routes["plan"], limits.routes["approve"]
    (6000 per 1 minute, None, 30 per 1 minute)
    """
    plain = text.strip()
    routes: dict[str, RateLimitItem | None] = {
        name: RateLimitItemPerMinute(amount) for name, (amount, _) in ROUTES.items()
    }
    if plain.lower() == "off":
        return RateLimits("off", dict.fromkeys(ROUTES))
    if plain.lower() == "on":
        return RateLimits("on", routes)
    for part in plain.split(","):
        name, equals, figure = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError("must be on, off, or figures such as report=6000/minute,plan=30/minute")
        if name not in ROUTES:
            raise ValueError(f"knows no route {name!r}; there are {', '.join(ROUTES)}")
        routes[name] = None if figure.lower() == "off" else _figure(name, figure)
    return RateLimits(plain, routes)


def _figure(name: str, figure: str) -> RateLimitItem:
    try:
        item = parse(figure)
    except ValueError:
        raise ValueError(f"has no figure for {name!r}: write {name}=600/minute, or {name}=off") from None
    if not 1 <= item.amount <= AMOUNT_MAX:
        raise ValueError(f"needs between 1 and {AMOUNT_MAX} requests for {name!r}")
    return item


class WindowStorage(Storage):
    """Fixed windows in memory, for one event loop: no lock, no thread, bounded. Times are `clock`'s seconds."""

    STORAGE_SCHEME = ["heartlane-window"]  # noqa: RUF012 - the library's registry reads a plain list

    def __init__(self, clock: Callable[[], float] = time.monotonic, windows_max: int = WINDOWS_MAX) -> None:
        super().__init__()
        self.windows: dict[str, list[float]] = {}  # key → [count, end]
        self._clock = clock
        self._windows_max = windows_max

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    def hit(self, key: str, seconds: float) -> tuple[float, float]:
        """Count one request. Returns the window's count with it, and the seconds until the window ends."""
        now = self._clock()
        window = self.windows.get(key)
        if window is not None and window[1] > now:
            window[0] += 1
            return window[0], window[1] - now
        self._open(key, 1, now, seconds)
        return 1, seconds

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = self._clock()
        window = self.windows.get(key)
        if window is None or window[1] <= now:
            self._open(key, amount, now, expiry)
            return amount
        window[0] += amount
        return int(window[0])

    def get(self, key: str) -> int:
        window = self.windows.get(key)
        return int(window[0]) if window is not None and window[1] > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        window = self.windows.get(key)
        return window[1] if window is not None else self._clock()

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self.windows)
        self.windows.clear()
        return count

    def clear(self, key: str) -> None:
        self.windows.pop(key, None)

    def _open(self, key: str, amount: int, now: float, seconds: float) -> None:
        # Taken out first, so that the dict stays in the order of the windows' starts.
        self.windows.pop(key, None)
        if len(self.windows) >= self._windows_max:
            for old in [name for name, window in self.windows.items() if window[1] <= now]:
                del self.windows[old]
            # Many at once, so that a flood of new addresses pays for one sweep in a thousand requests.
            for old in list(self.windows)[: max(0, len(self.windows) - self._windows_max * 99 // 100)]:
                del self.windows[old]
        self.windows[key] = [amount, now + seconds]


class LimitState(NamedTuple):
    """How an address stands with a route's limit after this request.

    limit           requests a window; 0 on a route without a limit
    remaining       requests left in this window
    reset_seconds   whole seconds until the window ends, at least 1
    allowed         whether this request may go on
    """

    limit: int
    remaining: int
    reset_seconds: int
    allowed: bool

    def headers(self) -> Headers:
        """The `RateLimit-*` headers; none on a route without a limit."""
        if not self.limit:
            return []
        return [
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % self.remaining),
            (b"ratelimit-reset", b"%d" % self.reset_seconds),
        ]

    def error(self) -> ApiError:
        """The 429 of a request that is not allowed, with its `RateLimit-*` headers; rendering adds `Retry-After`."""
        return ApiError(
            "RATE_LIMITED",
            f"More than {self.limit} requests came from this address; go on in {self.reset_seconds} s.",
            retry_after=self.reset_seconds,
            headers=self.headers(),
        )


UNLIMITED: Final = LimitState(0, 0, 0, True)


class RateLimiter:
    """Counts requests by route and client address. For one event loop; nothing here waits."""

    def __init__(self, limits: RateLimits, storage: WindowStorage | None = None) -> None:
        self._storage = WindowStorage() if storage is None else storage
        # Route → (requests, seconds, start of the key).
        self._routes = {
            name: None if item is None else (item.amount, item.get_expiry(), f"{item.namespace}/{name}/")
            for name, item in limits.routes.items()
        }
        self._default = self._routes[DEFAULT_ROUTE]

    def check(self, route: str, ip: str) -> LimitState:
        """Count a request of `ip` on `route` (a name of `ROUTES`; any other counts as `default`)."""
        figures = self._routes.get(route, self._default)
        if figures is None:
            return UNLIMITED
        limit, seconds, start = figures
        count, left = self._storage.hit(start + ip, seconds)
        return LimitState(limit, max(0, limit - int(count)), min(seconds, max(1, math.ceil(left))), count <= limit)


# --- who the client is --------------------------------------------------------------------------------------------

NO_ADDRESS: Final = "local"
"""Name of a client without an address, as one that comes through a Unix socket."""
ENTRY_MAX: Final = 100
"""Characters of one entry; the longest address with zone and port is shorter."""
_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\]]+)\](?::\d+)?|(?P<v4>[\d.]+):\d+)")


def client_ip(scope: Mapping[str, Any], trusted: Sequence[Network]) -> str:
    """The address that a request counts for.

    It is the peer's own, unless the peer is a trusted proxy: then it is the right-most entry of `X-Forwarded-For` that
    is not itself a trusted proxy. Entries further left were written by whoever that is, and are not believed; an entry
    that is no address ends the walk at the hop before it.
    """
    client = scope.get("client")
    peer: str = client[0] if client else NO_ADDRESS
    if not trusted:
        return peer if ":" not in peer else _address(peer) or peer
    nearest = _address(peer) or peer
    networks = tuple(trusted)
    if not is_within(nearest, networks):
        return nearest
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    for entry in reversed(forwarded.decode("latin-1").rsplit(",", FORWARDED_HOPS_MAX)[-FORWARDED_HOPS_MAX:]):
        hop = _address(entry.strip()) if len(entry) <= ENTRY_MAX else None
        if hop is None:
            break
        nearest = hop
        if not is_within(hop, networks):
            break
    return nearest


def is_trusted_peer(scope: Mapping[str, Any], trusted: Sequence[Network]) -> bool:
    """Whether the request came directly from a trusted proxy, so that what it says of the client is believed."""
    client = scope.get("client")
    if not trusted or not client:
        return False
    return is_within(_address(client[0]) or client[0], tuple(trusted))


@lru_cache(maxsize=4096)
def _address(text: str) -> str | None:
    """The address without port and brackets, one mapped into IPv6 as IPv4; None if it is no address."""
    with_port = _PORT.fullmatch(text)
    try:
        address = ip_address(text if with_port is None else with_port["v6"] or with_port["v4"])
    except ValueError:
        return None
    return str((address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address)
