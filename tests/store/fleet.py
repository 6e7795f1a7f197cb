"""An account with a project, right on a store: what most tests of the store begin with."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import insert

from heartlane.lanes.commands import Claim, Command, Report
from heartlane.lanes.decisions import Decision, Refusal
from heartlane.lanes.planning import Lane
from heartlane.lanes.run import Event, Run
from heartlane.store.batch import Announcement, ClaimNext, Outcome
from heartlane.store.feed import EVERYTHING
from heartlane.store.ids import new_id
from heartlane.store.pages import Reach
from heartlane.store.plans import approve_plan, create_plan
from heartlane.store.projects import create_milestone, create_project
from heartlane.store.runs import LoggedEvent, read_events, read_run
from heartlane.store.schema import accounts
from heartlane.store.store import Store
from heartlane.store.tickets import TicketRow, create_ticket, read_tickets

_names = itertools.count(1)


def lane(key: str, role: str = "backend", **fields: Any) -> Lane:
    """A lane of a plan."""
    return Lane(key, f"Lane {key}", role, **fields)


class Fleet:
    """One account's lanes on a store."""

    def __init__(self, store: Store, account_id: str, project_id: str) -> None:
        self.store = store
        self.account_id = account_id
        self.project_id = project_id

    @classmethod
    async def found(cls, store: Store, **project: Any) -> Fleet:
        """A new account with a project."""
        account_id = new_id()
        async with store.writing() as tx:
            values = {"id": account_id, "name": f"account-{next(_names)}-{account_id[-6:]}", "created_at": tx.now}
            await tx.conn.execute(insert(accounts).values(values))
        fleet = cls(store, account_id, "")
        fleet.project_id = await fleet.new_project(**project)
        return fleet

    async def new_project(self, **fields: Any) -> str:
        """One more project of the account; its id."""
        values = {"name": "Project", "repo_url": None, "default_branch": None, **fields}
        values = {"max_failures": 5, "stalled_after_seconds": 900, **values}
        async with self.store.writing() as tx:
            return (await create_project(tx, self.account_id, values)).id

    async def lanes(self, lanes: Sequence[Lane] | int = 1, *, project_id: str | None = None) -> list[Run]:
        """The runs of a new, approved plan, in the order of its lanes."""
        if isinstance(lanes, int):
            lanes = [lane(f"lane-{number}") for number in range(1, lanes + 1)]
        project_id = project_id or self.project_id
        async with self.store.writing() as tx:
            plan = await create_plan(
                tx, account_id=self.account_id, project_id=project_id, milestone_id=None, title="Plan", lanes=lanes
            )
            approved = await approve_plan(tx, plan.id, Reach(self.account_id))
        assert approved is not None
        assert not isinstance(approved, Refusal)
        return approved[1]

    async def ticket(self, *roles: str) -> str:
        """A new ticket of the project; its id."""
        texts = {"title": "Ticket", "description": "What is wanted", "request_type": "feature", "priority": "high"}
        empty = dict.fromkeys(("milestone_id", "evidence_json", "suggested_resolution", "actor_role", "external_url"))
        values = {**texts, **empty, "blocking": False}
        async with self.store.writing() as tx:
            row, _ = await create_ticket(tx, self.project_id, values, roles=roles, verified_existing=False)
            return row.id

    async def milestone(self) -> str:
        """A new milestone of the project; its id."""
        async with self.store.writing() as tx:
            values = {"name": "Milestone", "description": None, "due_at": None}
            return (await create_milestone(tx, self.project_id, values)).id

    async def read_ticket(self, ticket_id: str) -> TicketRow:
        """The ticket as it is now."""
        async with self.store.reading() as conn:
            return (await read_tickets(conn, self.project_id, [ticket_id]))[ticket_id]

    # --- commands -------------------------------------------------------------------------------------------------

    async def command(self, run: Run, command: Command, **options: Any) -> Outcome:
        """Submit a command on a run."""
        return await self.store.ledger.submit(run.id, command, **options)

    async def claim(self, run: Run, worker_id: str = "w1", lease_seconds: int | None = None) -> Run:
        """Claim that lane, which has to go through; the run."""
        return done(await self.command(run, Claim(worker_id, lease_seconds)))

    async def report(self, run: Run, *events: Event, worker_id: str = "w1", **fields: Any) -> Run:
        """Report on that lane, which has to go through; the run."""
        return done(await self.command(run, Report(worker_id, events=events, **fields)))

    async def claim_next(self, worker_id: str = "w1", **wanted: Any) -> Run | None:
        """Claim the best lane of those wanted (as in ClaimNext); the run, or None where there is none."""
        return (await self.command_next(worker_id, **wanted)).run

    async def command_next(self, worker_id: str = "w1", **wanted: Any) -> Outcome:
        """What becomes of such a claim."""
        return await self.store.ledger.claim_next(ClaimNext(worker_id, None, self.account_id, **wanted))

    # --- reads ----------------------------------------------------------------------------------------------------

    async def read(self, run: Run) -> Run:
        """The run as it is now."""
        async with self.store.reading() as conn:
            found = await read_run(conn, run.id, self.account_id, None)
        assert found is not None
        return found

    async def log(self, run: Run) -> list[LoggedEvent]:
        """All events of the run."""
        run = await self.read(run)
        async with self.store.reading() as conn:
            found, seen = await read_events(conn, run, after=0, types=(), limit=100_000)
        assert seen == run.event_count
        return found


def done(outcome: Outcome) -> Run:
    """The run after a command that went through."""
    assert isinstance(outcome.decision, Decision), outcome.decision
    assert outcome.run is not None
    return outcome.run


def code(outcome: Outcome) -> str | None:
    """The code of a refusal; None for a command that went through."""
    return outcome.decision.code if isinstance(outcome.decision, Refusal) else None


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until something holds; fail when it doesn't within so many seconds."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} seconds"
        await asyncio.sleep(0.005)


def heard_on(store: Store) -> list[Announcement]:
    """What is announced on a store from now on, but for EVERYTHING, which a listener says at its start."""
    heard: list[Announcement] = []
    store.feed.subscribe(lambda announced: None if announced is EVERYTHING else heard.append(announced))
    return heard
