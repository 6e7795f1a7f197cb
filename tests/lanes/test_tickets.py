from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from heartlane.lanes.decisions import Refusal
from heartlane.lanes.run import Role
from heartlane.lanes.tickets import (
    MERGED,
    SETTLED,
    TICKET_ROLES,
    Resolution,
    RoleState,
    Stage,
    Status,
    Ticket,
    advance,
    amend,
    initial_roles,
    lane_roles,
    open_ticket,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
ROLES = [str(role) for role in Role]
STATES = [str(state) for state in RoleState]
PR = "https://example.com/pull/1"


def ticket(*roles: str, **changes: Any) -> Ticket:
    return open_ticket("ticket-1", roles, NOW)._replace(**changes)


def moved(before: Ticket, role: str, event: str, pr_url: str | None = None) -> Ticket:
    return before._replace(**advance(before, role, event, pr_url, LATER))


def amended(before: Ticket, **wanted: Any) -> Ticket:
    changes = amend(before, LATER, **wanted)
    assert isinstance(changes, dict), changes
    return before._replace(**changes)


def refused(before: Ticket, **wanted: Any) -> Refusal:
    refusal = amend(before, LATER, **wanted)
    assert isinstance(refusal, Refusal), refusal
    return refusal


# --- a new ticket -------------------------------------------------------------------------------------------------


def test_a_new_ticket_waits_in_the_backlog_with_the_extra_role_merged() -> None:
    new = ticket("backend", "frontend")
    assert new.roles == {"frontend": "pending", "backend": "pending", "merged": "pending"}
    assert (new.status, new.stage, new.resolution_type, new.closed_at) == ("open", "backlog", None, None)
    assert lane_roles(new) == ["frontend", "backend"]


def test_a_ticket_without_a_role_gets_other() -> None:
    assert lane_roles(ticket()) == ["other"]


def test_what_is_verified_to_exist_needs_neither_test_nor_merge() -> None:
    new = open_ticket("t", ["test", "backend"], NOW, verified_existing=True)
    assert new.roles == {"backend": "pending", "test": "skipped", "merged": "skipped"}
    assert lane_roles(new) == ["backend"]


def test_a_verified_ticket_that_only_wants_a_test_is_born_closed() -> None:
    new = open_ticket("t", ["test"], NOW, verified_existing=True)
    assert (new.status, new.stage, new.resolution_type, new.closed_at) == ("closed", "live", "already_done", NOW)


# --- lanes move it ------------------------------------------------------------------------------------------------


def test_a_lane_moves_its_role_along() -> None:
    claimed = moved(ticket("backend", "qa"), "backend", "claimed")
    assert (claimed.roles["backend"], claimed.roles["qa"], claimed.stage) == ("in_progress", "pending", "in_progress")
    assert claimed.updated_at == LATER
    for event in ("failed", "released"):
        assert moved(claimed, "backend", event).roles["backend"] == "pending"
    shipped = moved(claimed, "backend", "shipped", PR)
    assert (shipped.roles["backend"], shipped.pr_urls, shipped.status) == ("done", [PR], "open")


def test_with_all_work_done_the_ticket_waits_for_its_merge() -> None:
    before = moved(ticket("backend", "qa"), "backend", "shipped", PR)
    assert before.stage == "backlog"
    done = moved(before, "qa", "shipped", PR)
    assert (done.stage, done.status, done.pr_urls) == ("validation", "open", [PR])
    merged = amended(done, roles={"merged": "done"})
    assert (merged.status, merged.stage, merged.resolution_type) == ("closed", "live", "completed")
    assert merged.closed_at == LATER


def test_the_last_role_shipped_closes_a_ticket_that_needs_no_merge() -> None:
    closed = moved(open_ticket("t", ["test", "qa"], NOW, verified_existing=True), "qa", "shipped")
    assert (closed.status, closed.resolution_type) == ("closed", "completed")


def test_a_settled_role_is_not_moved_by_a_lane() -> None:
    skipped = amended(ticket("backend", "qa"), roles={"backend": "skipped"})
    for event in ("claimed", "shipped", "failed", "released"):
        assert advance(skipped, "backend", event, None, LATER) == {}


def test_a_role_that_the_ticket_does_not_have_moves_nothing_but_the_pull_request_is_kept() -> None:
    assert advance(ticket("backend"), "qa", "claimed", None, LATER) == {}
    shipped = moved(ticket("backend"), "qa", "shipped", PR)
    assert (shipped.roles, shipped.pr_urls) == (ticket("backend").roles, [PR])
    assert advance(shipped, "qa", "shipped", PR, LATER) == {}


# --- people move it -----------------------------------------------------------------------------------------------


def test_closing_earlier_is_refused_and_says_what_is_left() -> None:
    for wanted in ({"status": "closed"}, {"stage": "live"}, {"roles": {"backend": "done"}, "status": "closed"}):
        refusal = refused(ticket("backend", "qa"), **wanted)
        assert refusal.code == "ROLES_INCOMPLETE"
        assert "qa (pending), merged (pending)" in refusal.error


def test_a_close_can_skip_what_is_left_in_the_same_step() -> None:
    closed = amended(
        ticket("qa"), roles={"qa": "skipped", "merged": "skipped"}, status="closed", resolution_type="duplicate"
    )
    assert (closed.status, closed.stage, closed.resolution_type) == ("closed", "live", "duplicate")


@pytest.mark.parametrize(
    ("wanted", "status", "stage"),
    [
        ({"status": "open"}, "open", "up_next"),
        ({"stage": "validation"}, "open", "validation"),
        ({"roles": {"qa": "in_progress"}}, "open", "in_progress"),
        ({"roles": {"qa": "pending"}}, "open", "up_next"),
        ({"roles": {"design": "pending"}}, "open", "up_next"),
        ({"status": "closed"}, "closed", "live"),
        ({"roles": {"qa": "skipped"}}, "closed", "live"),
    ],
)
def test_a_closed_ticket_reopens(wanted: dict[str, Any], status: str, stage: str) -> None:
    closed = amended(ticket("qa"), roles={"qa": "done", "merged": "done"})
    after = amended(closed, **wanted)
    assert (after.status, after.stage) == (status, stage)
    assert (after.closed_at is None) == (status == "open") == (after.resolution_type is None)


def test_a_resolution_belongs_to_a_close() -> None:
    assert refused(ticket("qa"), resolution_type="duplicate").code == "INVALID_REQUEST"
    closed = amended(ticket("qa"), roles={"qa": "done", "merged": "done"})
    assert amended(closed, resolution_type="wont_fix").resolution_type == "wont_fix"
    assert refused(closed, status="open", resolution_type="wont_fix").code == "INVALID_REQUEST"


def test_status_and_stage_must_fit() -> None:
    assert refused(ticket("qa"), status="open", stage="live").code == "INVALID_REQUEST"
    assert refused(ticket("qa"), status="closed", stage="backlog").code == "INVALID_REQUEST"


def test_verifying_later_skips_what_is_still_open() -> None:
    verified = amended(moved(ticket("test", "qa"), "test", "shipped"), verified_existing=True)
    assert verified.roles == {"test": "done", "qa": "pending", "merged": "skipped"}
    closed = amended(ticket("test"), verified_existing=True)
    assert (closed.status, closed.resolution_type) == ("closed", "already_done")


def test_no_change_changes_nothing() -> None:
    before = ticket("qa")
    assert amend(before, LATER) == {}
    assert amend(before, LATER, roles={"qa": "pending"}, status="open", stage="backlog", verified_existing=False) == {}


@given(st.lists(st.sampled_from(ROLES)), st.booleans())
def test_the_roles_of_a_new_ticket(roles: list[str], verified: bool) -> None:
    states = initial_roles(roles, verified_existing=verified)
    assert set(states) == (set(roles) or {"other"}) | {MERGED}
    assert list(states) == [role for role in TICKET_ROLES if role in states]


class AnyTicket(RuleBasedStateMachine):
    """Any order of lanes' and people's moves keeps what must always hold."""

    def __init__(self) -> None:
        super().__init__()
        self.ticket = ticket("other")

    @initialize(roles=st.sets(st.sampled_from(ROLES)), verified=st.booleans(), stage=st.sampled_from(list(Stage)[:-1]))
    def start(self, roles: set[str], verified: bool, stage: str) -> None:
        self.ticket = open_ticket("t", roles, NOW, stage=str(stage), verified_existing=verified)

    @rule(role=st.sampled_from(TICKET_ROLES), event=st.sampled_from(["claimed", "shipped", "failed", "released"]))
    def lane(self, role: str, event: str) -> None:
        before = self.ticket
        self.ticket = moved(before, role, event, PR if event == "shipped" else None)
        settled = {name for name, state in before.roles.items() if state in SETTLED}
        assert all(self.ticket.roles[name] == before.roles[name] for name in settled)
        if before.status == "closed":
            assert self.ticket.status == "closed"

    @rule(
        roles=st.none() | st.dictionaries(st.sampled_from(TICKET_ROLES), st.sampled_from(STATES), min_size=1),
        status=st.none() | st.sampled_from([str(status) for status in Status]),
        stage=st.none() | st.sampled_from([str(stage) for stage in Stage]),
        resolution=st.none() | st.sampled_from([str(resolution) for resolution in Resolution]),
        verified=st.none() | st.booleans(),
    )
    def person(
        self, roles: dict[str, str] | None, status: str | None, stage: str | None, resolution: str | None, verified: Any
    ) -> None:
        changes = amend(
            self.ticket,
            LATER,
            roles=roles,
            status=status,
            stage=stage,
            resolution_type=resolution,
            verified_existing=verified,
        )
        if isinstance(changes, Refusal):
            assert changes.code in ("ROLES_INCOMPLETE", "INVALID_REQUEST")
            return
        self.ticket = self.ticket._replace(**changes)
        assert status in (None, self.ticket.status)
        assert stage in (None, self.ticket.stage)
        assert all(self.ticket.roles[name] == state for name, state in (roles or {}).items()) or verified
        again = amend(self.ticket, LATER, status=status, stage=stage)
        assert again == {}

    @invariant()
    def closed_means_live_and_settled(self) -> None:
        closed = self.ticket.status == "closed"
        assert closed == (self.ticket.stage == "live")
        assert closed == (self.ticket.resolution_type is not None) == (self.ticket.closed_at is not None)
        if closed:
            assert set(self.ticket.roles.values()) <= SETTLED
        assert MERGED in self.ticket.roles


TestAnyTicket = AnyTicket.TestCase
