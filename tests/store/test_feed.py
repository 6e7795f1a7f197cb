"""Announcements: handed to whoever listens here, and to other servers as a payload that may be too large or garbled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.store.batch import Announcement, Opening
from heartlane.store.feed import EVERYTHING, PAYLOAD_MAX_BYTES, Feed, decode, encode
from heartlane.store.ids import new_id
from heartlane.store.store import Store
from tests.store.fleet import heard_on

ME, OTHER = "018f0000-0000-7000-8000-000000000001", "018f0000-0000-7000-8000-000000000002"
texts = st.text(max_size=20)
openings = st.builds(Opening, texts, texts, texts, texts, st.integers(1, 2_000))
announcements = st.builds(
    Announcement,
    st.lists(openings, max_size=5),
    st.lists(texts, max_size=5),
    st.lists(texts, max_size=5).map(tuple),
)


# --- in this process ----------------------------------------------------------------------------------------------


def test_every_hearer_hears_until_it_ends_it() -> None:
    feed, first, second = Feed(), list[Announcement](), list[Announcement]()
    end = feed.subscribe(first.append)
    feed.subscribe(second.append)
    feed.publish(EVERYTHING)
    end()
    feed.publish(Announcement(run_ids=["a"]))
    assert first == [EVERYTHING]
    assert second == [EVERYTHING, Announcement(run_ids=["a"])]


def test_a_hearer_that_fails_keeps_no_other_from_hearing() -> None:
    feed, heard = Feed(), list[Announcement]()

    def at_fault(announcement: Announcement) -> None:
        raise ZeroDivisionError

    feed.subscribe(at_fault)
    feed.subscribe(heard.append)
    feed.publish(EVERYTHING)
    assert heard == [EVERYTHING]


def test_a_hearer_may_leave_while_it_hears() -> None:
    feed, heard = Feed(), list[str]()
    ends: list[Any] = []

    def once(announcement: Announcement) -> None:
        heard.append("once")
        ends[0]()

    ends.append(feed.subscribe(once))
    feed.subscribe(lambda announcement: heard.append("always"))
    feed.publish(EVERYTHING)
    feed.publish(EVERYTHING)
    assert heard == ["once", "always", "always"]


# --- as a payload -------------------------------------------------------------------------------------------------


@given(announcements)
def test_another_server_hears_what_was_sent(announcement: Announcement) -> None:
    payload = encode(OTHER, announcement)
    assert len(payload.encode()) <= PAYLOAD_MAX_BYTES
    heard = decode(ME, payload)
    assert heard == announcement
    assert heard is not EVERYTHING


@given(announcements)
def test_a_servers_own_echo_is_dropped(announcement: Announcement) -> None:
    assert decode(ME, encode(ME, announcement)) is None


@pytest.mark.parametrize("fits", [True, False])
def test_what_doesnt_fit_stands_for_everything(fits: bool) -> None:
    empty = len(encode(OTHER, Announcement(run_ids=[""])))
    announcement = Announcement([], ["x" * (PAYLOAD_MAX_BYTES - empty + (0 if fits else 1))])
    payload = encode(OTHER, announcement)
    assert len(payload.encode()) <= PAYLOAD_MAX_BYTES
    assert (decode(ME, payload) == announcement) == fits
    assert (decode(ME, payload) is EVERYTHING) != fits
    assert decode(OTHER, payload) is None


def test_bytes_are_counted_and_not_characters() -> None:
    announcement = Announcement([Opening("a", "p", "qa", "ü" * (PAYLOAD_MAX_BYTES // 2))])
    assert decode(ME, encode(OTHER, announcement)) is EVERYTHING


@given(
    st.one_of(st.text(max_size=40), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(str))
)
def test_a_payload_that_cant_be_read_stands_for_everything(payload: str) -> None:
    assert decode(ME, payload) is EVERYTHING


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "s": st.sampled_from([ME, OTHER, None, 1]),
            "o": st.one_of(st.none(), st.lists(st.one_of(st.integers(), st.lists(st.text(max_size=3), max_size=7)))),
            "r": st.one_of(st.none(), st.lists(st.text(max_size=3))),
        },
    )
)
def test_a_payload_of_another_make_never_fails(payload: dict[str, Any]) -> None:
    heard = decode(ME, json.dumps(payload))
    if payload.get("s") == ME:
        assert heard is None
    else:
        assert isinstance(heard, Announcement)


async def test_what_a_transaction_announces_is_heard_once_it_has_committed(store: Store) -> None:
    heard = heard_on(store)
    opening = Opening(new_id(), new_id(), "qa", "")
    async with store.writing() as tx:
        tx.announce([opening])
        assert heard == []
    assert heard == [Announcement([opening])]

    async def at_fault() -> None:
        async with store.writing() as tx:
            tx.announce([opening])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await at_fault()
    assert len(heard) == 1
