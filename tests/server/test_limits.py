"""Rate limits per route and address, and who the client is behind proxies."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.server.errors import render
from heartlane.server.limits import (
    DEFAULT_ROUTE,
    ROUTES,
    RateLimiter,
    WindowStorage,
    client_ip,
    parse_rate_limits,
)

HERE = "192.0.2.1"
THERE = "192.0.2.2"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def limiter(text: str) -> tuple[RateLimiter, Clock]:
    clock = Clock()
    return RateLimiter(parse_rate_limits(text), WindowStorage(clock)), clock


# --- the setting --------------------------------------------------------------------------------------------------


def test_the_contracts_figures_stand_by_default() -> None:
    routes = parse_rate_limits("on").routes
    figures = {name: (item.amount, item.get_expiry()) for name, item in routes.items() if item is not None}
    assert figures["report"] == (600, 60)
    assert figures["plan"] == figures["approve"] == figures["reject"] == (30, 60)
    assert set(figures) == set(ROUTES)


def test_figures_change_the_routes_they_name_and_no_other() -> None:
    routes = parse_rate_limits(" report = 6000/minute , plan=5/10 second, claim=off ").routes
    assert (routes["report"].amount, routes["report"].get_expiry()) == (6000, 60)  # type: ignore[union-attr]
    assert (routes["plan"].amount, routes["plan"].get_expiry()) == (5, 10)  # type: ignore[union-attr]
    assert routes["claim"] is None
    assert routes["approve"] == parse_rate_limits("on").routes["approve"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "report",
        "report=",
        "report=0/minute",
        "report=-1/minute",
        "report=6/fortnight",
        "reports=6/minute",
        "report=6/minute,",
        "report=6/minute;plan=1/minute",
        "report=9999999999/minute",
        "=6/minute",
    ],
)
def test_what_is_no_figure_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|knows|has|needs) "):
        parse_rate_limits(text)


# --- counting -----------------------------------------------------------------------------------------------------


def test_a_window_counts_down_refuses_and_opens_again() -> None:
    counted, clock = limiter("report=3/minute")
    states = [counted.check("report", HERE) for _ in range(4)]
    assert [(state.limit, state.remaining, state.allowed) for state in states] == [
        (3, 2, True),
        (3, 1, True),
        (3, 0, True),
        (3, 0, False),
    ]
    clock.now += 59.5
    refused = counted.check("report", HERE)
    assert (refused.allowed, refused.reset_seconds) == (False, 1)
    clock.now += 0.5
    assert counted.check("report", HERE) == (3, 2, 60, True)


def test_addresses_and_routes_are_counted_apart() -> None:
    counted, _ = limiter("report=1/minute,plan=1/minute")
    assert counted.check("report", HERE).allowed
    assert not counted.check("report", HERE).allowed
    assert counted.check("report", THERE).allowed
    assert counted.check("plan", HERE).allowed
    assert counted.check("approve", HERE).allowed


def test_routes_without_a_name_of_their_own_share_one_limit() -> None:
    counted, _ = limiter("default=2/minute")
    assert counted.check("projects", HERE).allowed
    assert counted.check(DEFAULT_ROUTE, HERE).remaining == 0
    assert not counted.check("runs", HERE).allowed


def test_off_means_no_limit_and_no_headers() -> None:
    counted, _ = limiter("off")
    assert all(counted.check("plan", HERE).allowed for _ in range(2_000))
    assert counted.check("plan", HERE).headers() == []


def test_the_answer_says_how_the_client_stands() -> None:
    counted, clock = limiter("report=1/minute")
    assert dict(counted.check("report", HERE).headers()) == {
        b"ratelimit-limit": b"1",
        b"ratelimit-remaining": b"0",
        b"ratelimit-reset": b"60",
    }
    clock.now += 17.25
    refused = render(counted.check("report", HERE).error())
    assert refused.status == 429
    assert b'"code":"RATE_LIMITED"' in refused.body
    assert b'"retryAfter":43' in refused.body
    headers = dict(refused.headers)
    assert (headers[b"retry-after"], headers[b"ratelimit-reset"], headers[b"ratelimit-remaining"]) == (
        b"43",
        b"43",
        b"0",
    )


def test_windows_are_bounded_and_the_oldest_goes_first() -> None:
    clock = Clock()
    storage = WindowStorage(clock, windows_max=100)
    for number in range(1_000):
        storage.hit(f"flood/{number}", 60)
        assert len(storage.windows) <= 100
    assert storage.get("flood/0") == 0
    assert storage.get("flood/999") == 1
    clock.now += 61
    storage.hit("later", 60)
    assert set(storage.windows) == {"later"}


@given(st.lists(st.floats(0, 30), max_size=60))
def test_a_window_is_whole_whatever_the_pauses(pauses: list[float]) -> None:
    counted, clock = limiter("report=5/minute")
    end, used = 0.0, 0
    for pause in pauses:
        clock.now += pause
        if clock.now >= end:
            end, used = clock.now + 60, 0
        used += 1
        state = counted.check("report", HERE)
        assert (state.allowed, state.remaining) == (used <= 5, max(0, 5 - used))
        assert 1 <= state.reset_seconds <= 60


# --- the client's address -----------------------------------------------------------------------------------------

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in forwarded)]
    return {"client": None if peer is None else (peer, 1234), "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.9", ["1.1.1.1"], "192.0.2.9"),  # not our proxy: what it claims is not believed
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),  # the left one is the client's own claim
        ("10.0.0.1", ["6.6.6.6, 198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7", "10.9.9.9"], "198.51.100.7"),  # two headers are one list
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["198.51.100.7, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["198.51.100.7,"], "10.0.0.1"),
        ("10.0.0.1", ["\xff" * 5_000], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:5555"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:5555"], "2001:db8::7"),
        ("10.0.0.1", ["2001:DB8:0::7"], "2001:db8::7"),
        ("fd00::1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", [",".join(["198.51.100.7"] + ["10.0.0.2"] * 40)], "10.0.0.2"),
        (None, ["198.51.100.7"], "local"),
    ],
)
def test_behind_a_proxy_the_client_is_the_right_most_hop_that_is_not_trusted(
    peer: str | None, forwarded: list[str], expected: str
) -> None:
    assert client_ip(scope(peer, *forwarded), PROXIES) == expected


@pytest.mark.parametrize("peer", ["192.0.2.9", "2001:db8::1", "10.0.0.1"])
def test_without_trusted_proxies_the_header_is_ignored(peer: str) -> None:
    assert client_ip(scope(peer, "1.1.1.1"), ()) == peer


@given(st.lists(st.text(max_size=40), max_size=5))
def test_no_header_makes_it_fail(values: list[str]) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in values]
    assert client_ip({"client": ("10.0.0.1", 1), "headers": headers}, PROXIES)
