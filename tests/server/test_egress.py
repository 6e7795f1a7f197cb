"""Where the server may connect to by itself: what is checked is the address that is connected to."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import httpcore
import pytest

from heartlane.server import egress
from heartlane.server.egress import Allowed, Blocked, Guard, is_public, parse_allowed
from tests.receiver import Receiver, status

NOT_PUBLIC = """
0.0.0.0 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 127.1.2.3 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1
192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1
100::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:a00:1:: fc00::1 fd12::1 fe80::1 fec0::1 ff02::1
"""


@pytest.mark.parametrize("text", NOT_PUBLIC.split())
def test_no_address_of_a_network_of_ones_own_is_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are(text: str) -> None:
    assert is_public(ip_address(text))


def test_the_setting_takes_networks_addresses_and_names() -> None:
    allowed = parse_allowed("10.0.0.0/8, ::1, Hooks.Internal.,192.168.1.7")
    assert [str(each) for each in allowed.networks] == ["10.0.0.0/8", "::1/128", "192.168.1.7/32"]
    assert allowed.hosts == {"hooks.internal"}
    assert parse_allowed("") == Allowed()
    for wrong in ("10.0.0.0/99", "http://x", "a b", "*.example.com"):
        with pytest.raises(ValueError, match="must be networks"):
            parse_allowed(wrong)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name lead to these addresses."""

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def post(guard: Guard, url: str) -> httpcore.Response:
    async with httpcore.AsyncConnectionPool(network_backend=guard) as pool:
        return await pool.request("POST", url, content=b"x")


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver:
        resolve_to(monkeypatch, "127.0.0.1")
        with pytest.raises(Blocked, match=r"innocent\.example leads to an address that is not public"):
            await post(Guard(Allowed()), receiver.url(host="innocent.example"))
        assert receiver.connections == 0
        for allowed in ("127.0.0.0/8", "innocent.example"):
            answer = await post(Guard(parse_allowed(allowed)), receiver.url(host="innocent.example"))
            assert answer.status == 200
        assert receiver.got()[0].headers["host"] == f"innocent.example:{receiver.port}"


async def test_of_a_names_addresses_only_those_that_pass_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver:
        resolve_to(monkeypatch, "10.255.255.1", "127.0.0.1")
        answer = await post(Guard(parse_allowed("127.0.0.1")), receiver.url(host="both.example"))
        assert answer.status == 200


async def test_numbers_that_are_addresses_in_disguise_are_seen_through() -> None:
    async with Receiver() as receiver:
        for host in ("127.1", "0x7f.1", "2130706433", "localhost", "127.0.0.1"):
            with pytest.raises((Blocked, httpcore.ConnectError)):
                await post(Guard(Allowed()), receiver.url(host=host))
        assert receiver.connections == 0


async def test_a_redirect_is_no_way_in() -> None:
    async with Receiver() as outside, Receiver() as inside:
        outside.answers["/hook"] = [status(307, location=inside.url())]
        answer = await post(Guard(parse_allowed("127.0.0.1")), outside.url())
        assert answer.status == 307
        assert inside.connections == 0


async def test_a_name_server_that_hangs_holds_up_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    asked: list[str] = []

    def look_up(host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        if host == "slow.example":
            import time

            time.sleep(1)
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(egress, "RESOLVE_SECONDS", 0.2)
    guard = Guard(parse_allowed("127.0.0.1"))
    async with Receiver() as receiver:
        slow = [asyncio.create_task(post(guard, receiver.url(host="slow.example"))) for _ in range(20)]
        assert (await post(guard, receiver.url(host="quick.example"))).status == 200
        for error in await asyncio.gather(*slow, return_exceptions=True):
            assert isinstance(error, httpcore.ConnectTimeout)
    assert asked.count("slow.example") == 1
    guard.close()
