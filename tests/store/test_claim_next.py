"""Which lane a claim gets that names none: the highest priority, then the oldest, of those that fit and are free."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heartlane.lanes.commands import Cancel, Claim, Pause, Release, Ripen
from heartlane.lanes.run import Event, Run
from heartlane.store.batch import Announcement, ClaimNext, Opening
from heartlane.store.control import due_again, upcoming
from tests.store.fleet import Fleet, done, heard_on, lane

SHIP = Event("ship_complete", {})


def key(run: Run | None) -> str | None:
    return None if run is None else run.lane_key


async def order(fleet: Fleet, **wanted: Any) -> list[str]:
    """The keys of all lanes there are to claim, in the order in which claims get them."""
    found = []
    while (run := await fleet.claim_next(**wanted)) is not None:
        found.append(run.lane_key)
    return found


# --- the order ----------------------------------------------------------------------------------------------------


async def test_the_highest_priority_first_and_then_the_oldest(fleet: Fleet) -> None:
    await fleet.lanes([lane("a"), lane("b", priority=5), lane("c", priority=-5)])
    await fleet.lanes([lane("d", priority=5), lane("e", "qa"), lane("f", priority=2**31 - 1)])
    assert await order(fleet) == ["f", "b", "d", "a", "e", "c"]


async def test_a_lane_that_comes_back_has_its_old_place(fleet: Fleet) -> None:
    first, _, _ = await fleet.lanes([lane("a"), lane("b"), lane("c")])
    await fleet.claim(first)
    await fleet.command(first, Release("w1"))
    assert await order(fleet) == ["a", "b", "c"]


async def test_there_may_be_nothing(fleet: Fleet) -> None:
    assert await fleet.claim_next() is None
    await fleet.lanes()
    assert await fleet.claim_next("w1") is not None
    assert await fleet.claim_next("w1") is None


# --- what fits ----------------------------------------------------------------------------------------------------


async def test_by_role(fleet: Fleet) -> None:
    await fleet.lanes([lane("a", "qa"), lane("b", "backend"), lane("c", "test", priority=1), lane("d", "qa")])
    assert await fleet.claim_next(roles=("design",)) is None
    assert await order(fleet, roles=("test", "backend")) == ["c", "b"]
    assert await order(fleet) == ["a", "d"]


async def test_a_lane_fits_when_all_that_it_asks_for_is_offered(fleet: Fleet) -> None:
    await fleet.lanes(
        [
            lane("both", labels={"os": "linux", "gpu": "yes"}),
            lane("mac", labels={"os": "mac"}),
            lane("any"),
            lane("linux", labels={"os": "linux"}),
        ]
    )
    assert await order(fleet, labels={"os": "linux", "disk": "big"}) == ["any", "linux"]
    assert await order(fleet) == []
    assert await order(fleet, labels={"gpu": "yes", "os": "linux"}) == ["both"]
    assert await order(fleet, labels={"os": "MAC"}) == []
    assert await order(fleet, labels={"os": "mac"}) == ["mac"]


async def test_by_project_and_never_of_another_account(fleet: Fleet) -> None:
    other_project = await fleet.new_project()
    stranger = await Fleet.found(fleet.store)
    await stranger.lanes([lane("theirs", priority=9)])
    await fleet.lanes([lane("a")])
    await fleet.lanes([lane("b", priority=1)], project_id=other_project)
    assert await fleet.claim_next(project_id=stranger.project_id) is None
    assert await order(fleet, project_id=fleet.project_id) == ["a"]
    assert await order(fleet) == ["b"]
    assert await order(stranger) == ["theirs"]


# --- what is held back --------------------------------------------------------------------------------------------


async def test_a_lane_that_waits_for_others_is_passed_over(fleet: Fleet) -> None:
    first, second, _ = await fleet.lanes(
        [lane("first"), lane("second"), lane("behind", priority=9, after=("first", "second"))]
    )
    assert await order(fleet) == ["first", "second"]
    await fleet.report(first, SHIP)
    assert await fleet.claim_next() is None
    await fleet.report(second, SHIP)
    assert await order(fleet) == ["behind"]


async def test_a_lane_is_claimable_from_its_moment_on_ripe_or_not(fleet: Fleet) -> None:
    held_back, _ = await fleet.lanes([lane("a", priority=1), lane("b")])
    await fleet.claim(held_back)
    await fleet.command(held_back, Release("w1", retry_after=60))
    assert key(await fleet.claim_next()) == "b"
    fleet.store.clock.advance(59)
    assert await fleet.claim_next() is None
    fleet.store.clock.advance(1)
    # No server has looked yet, so `not_before` still stands there; a claim sees that it has passed.
    assert (await fleet.read(held_back)).not_before is not None
    run = await fleet.claim_next()
    assert key(run) == "a"
    assert run is not None
    assert run.not_before is None


async def test_what_has_ripened_is_back_in_the_queue(fleet: Fleet) -> None:
    early, late, _ = await fleet.lanes([lane("early", priority=1), lane("late", priority=2), lane("third")])
    for run, seconds in ((early, 60), (late, 120)):
        await fleet.claim(run)
        await fleet.command(run, Release("w1", retry_after=seconds))
    now = await fleet.store.now()
    assert await due_again(fleet.store, now) == []
    assert (await upcoming(fleet.store)).not_before == (await fleet.read(early)).not_before
    fleet.store.clock.advance(60)
    assert await due_again(fleet.store, await fleet.store.now()) == [early.id]
    await fleet.command(late, Ripen())
    await fleet.command(early, Ripen())
    assert (await fleet.read(early)).not_before is None
    assert (await fleet.read(late)).not_before is not None, "not ripe yet"
    assert await due_again(fleet.store, await fleet.store.now()) == []
    assert await order(fleet) == ["early", "third"]


async def test_a_release_of_zero_seconds_is_one_for_now(fleet: Fleet) -> None:
    (run,) = await fleet.lanes()
    await fleet.claim(run)
    assert done(await fleet.command(run, Release("w1", retry_after=0))).not_before is None
    assert key(await fleet.claim_next()) == run.lane_key


# --- together with others -----------------------------------------------------------------------------------------


async def test_claims_that_come_in_together_each_get_a_lane_of_their_own(fleet: Fleet) -> None:
    await fleet.lanes(30)
    claimed = await asyncio.gather(*(fleet.claim_next(f"w{number}") for number in range(40)))
    lanes = [run.lane_key for run in claimed if run is not None]
    assert len(lanes) == len(set(lanes)) == 30
    assert claimed.count(None) == 10
    assert all(run.attempt == 1 and run.worker_id == f"w{number}" for number, run in enumerate(claimed) if run)


async def test_claims_of_two_kinds_dont_starve_each_other(fleet: Fleet) -> None:
    await fleet.lanes([lane("a"), lane("b")])
    claimed = await asyncio.gather(fleet.claim_next("w1"), fleet.claim_next("w2", roles=("backend",)))
    assert {key(run) for run in claimed} == {"a", "b"}


async def test_a_claim_isnt_sent_away_for_what_its_neighbours_took(fleet: Fleet) -> None:
    a, b, _, _ = await fleet.lanes([lane(name) for name in "abcd"])
    outcomes = await asyncio.gather(
        fleet.command(a, Claim("w1")),
        fleet.command(b, Cancel()),
        fleet.command_next("w2"),
        fleet.command_next("w3", roles=("backend",)),
    )
    assert {key(outcome.run) for outcome in outcomes[2:]} == {"c", "d"}


async def test_a_claim_by_name_beside_one_without(fleet: Fleet) -> None:
    (run,) = await fleet.lanes()
    named, unnamed = await asyncio.gather(fleet.command(run, Claim("w1")), fleet.claim_next("w2"))
    assert (getattr(named.decision, "code", None) is None) != (unnamed is not None)
    holder = (await fleet.read(run)).worker_id
    assert holder == ("w2" if unnamed is not None else "w1")


# --- one at a time ------------------------------------------------------------------------------------------------


async def test_who_works_one_lane_at_a_time_has_the_same_one_again(fleet: Fleet) -> None:
    first, _, _ = await fleet.lanes(3)
    once = await fleet.claim_next("w1", one_at_a_time=True)
    again = await fleet.claim_next("w1", one_at_a_time=True)
    assert once is not None
    assert again is not None
    assert (again.id, again.attempt, again.state) == (first.id, 1, "claimed")
    assert again.lease_expires_at is not None
    assert once.lease_expires_at is not None
    assert again.lease_expires_at > once.lease_expires_at, "the lease counts from the answer that arrives"
    # … also once it has reported, in whichever state the lane is, until it is let go.
    await fleet.report(first, seq=1)
    await fleet.command(first, Pause())
    assert key(await fleet.claim_next("w1", one_at_a_time=True)) == first.lane_key
    await fleet.command(first, Release("w1", retry_after=60))
    other = await fleet.claim_next("w1", one_at_a_time=True)
    assert other is not None
    assert other.id != first.id
    assert [event.type for event in await fleet.log(other)] == ["claimed"]


async def test_claims_that_come_in_twice_together_are_one(fleet: Fleet) -> None:
    await fleet.lanes(12)
    claims = [fleet.claim_next(f"w{number % 4}", one_at_a_time=True) for number in range(12)]
    claimed = await asyncio.gather(*claims)
    held = {(run.worker_id, run.lane_key) for run in claimed if run is not None}
    assert len(held) == 4
    assert None not in claimed


async def test_nobody_elses_lane_is_answered_to_who_works_one_at_a_time(fleet: Fleet) -> None:
    stranger = await Fleet.found(fleet.store)
    await stranger.lanes(1)
    (mine,) = await fleet.lanes(1)
    other_project = await fleet.new_project()
    assert await stranger.claim_next("w1") is not None
    claimed = await fleet.claim_next("w1", one_at_a_time=True)
    assert key(claimed) == mine.lane_key
    # A token that sees one project hears nothing of a lane of another's.
    assert await fleet.claim_next("w1", project_id=other_project, one_at_a_time=True) is None
    assert await fleet.claim_next("w2", one_at_a_time=True) is None


# --- what others hear ---------------------------------------------------------------------------------------------


@pytest.fixture
def heard(fleet: Fleet) -> list[Announcement]:
    """What is announced on this store from now on."""
    return heard_on(fleet.store)


async def test_lanes_that_open_are_announced_with_their_kind_and_number(
    fleet: Fleet, heard: list[Announcement]
) -> None:
    await fleet.lanes([lane("a"), lane("b"), lane("c", "qa", labels={"os": "linux"}), lane("d", after=("a",))])
    account, project = fleet.account_id, fleet.project_id
    (announced,) = heard
    assert set(announced.openings) == {
        Opening(account, project, "backend", "", 2),
        Opening(account, project, "qa", '{"os":"linux"}', 1),
    }


async def test_a_lane_opens_when_the_one_before_it_ships_or_when_it_comes_back(
    fleet: Fleet, heard: list[Announcement]
) -> None:
    first, behind = await fleet.lanes([lane("first"), lane("behind", "qa", after=("first",))])
    await fleet.claim(first)
    await fleet.report(first)
    heard.clear()
    await fleet.report(first, SHIP)
    (shipped,) = heard
    assert shipped.openings == [Opening(fleet.account_id, fleet.project_id, "qa", "")]
    assert first.id in shipped.run_ids
    await fleet.claim(behind)
    heard.clear()
    await fleet.command(behind, Release("w1", retry_after=60))
    assert [announced.openings for announced in heard] == [[]], "it isn't claimable yet"
    fleet.store.clock.advance(60)
    await fleet.command(behind, Ripen())
    assert heard[-1].openings == [Opening(fleet.account_id, fleet.project_id, "qa", "")]


async def test_a_heartbeat_announces_nothing(fleet: Fleet, heard: list[Announcement]) -> None:
    (run,) = await fleet.lanes()
    await fleet.claim(run)
    await fleet.report(run, phase="tests")
    heard.clear()
    await fleet.report(run)
    await fleet.report(run, phase="tests")
    assert heard == []


async def test_labels_of_a_claim_are_compared_whole() -> None:
    claim = ClaimNext("w1", None, "account", labels={"os": "linux"})
    assert claim.fits_labels("")
    assert claim.fits_labels('{"os":"linux"}')
    assert not claim.fits_labels('{"os":"linux","gpu":"yes"}')
    assert not claim.fits_labels('{"os":"Linux"}')
