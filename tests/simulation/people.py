"""People of the simulated world: they plan and approve lanes, and pause, resume, cancel, release and retry them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from heartlane.lanes.commands import Cancel, Pause, Release, Resume, Retry
from heartlane.lanes.planning import Lane
from heartlane.lanes.run import HELD_STATES, State
from heartlane.server.errors import ApiError
from heartlane.store.errors import StoreError
from heartlane.store.pages import Reach
from heartlane.store.plans import approve_plan, create_plan
from heartlane.store.projects import create_project
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.server import Server
    from tests.simulation.world import World

LANES_PER_PLAN: Final = 50
ANY: Final = frozenset(map(str, State))
FITTING: Final = {
    Pause: HELD_STATES,
    Resume: frozenset({"paused"}),
    Cancel: HELD_STATES,
    Release: HELD_STATES,
    Retry: frozenset({"failed"}),
}
"""In which states a command does something."""


class People:
    """All of them, at one desk."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.process = Process(world.loop, "people")
        self._plans = 0
        self.project_id = ""

    def begin(self) -> None:
        """Go to work."""
        self.process.spawn(self._plan())
        self.process.spawn(self._steer())

    async def _plan(self) -> None:
        """Approve plans until there are lanes enough, and again whenever few are left."""
        world = self._world
        while True:
            open_lanes = sum(lane.folded.state not in ("shipped", "failed") for lane in world.checker.lanes.values())
            server = world.any_server()
            if server is None or open_lanes >= world.scale.lanes:
                await asyncio.sleep(1.0 if server is None else 10.0)
                continue
            try:
                await server.process.spawn(self._approve(server))
                world.step("plan", str(self._plans))
            except (StoreError, asyncio.CancelledError):
                self.process.look()
                await asyncio.sleep(1.0)

    async def _approve(self, server: Server) -> None:
        world = self._world
        if not self.project_id:
            values = {"name": "Project", "repo_url": None, "default_branch": None}
            limits = {"max_failures": 3, "stalled_after_seconds": 900}
            async with server.store.writing() as tx:
                project = await create_project(tx, world.account_id, values | limits)
            self.project_id = project.id
        self._plans += 1
        lanes = []
        for number in range(LANES_PER_PLAN):
            key = f"{self._plans}-{number}"
            after = (f"{self._plans}-{world.random.randrange(number)}",) if number and world.chance(0.2) else ()
            lanes.append(Lane(key, f"Lane {key}", "backend", priority=world.random.randrange(3), after=after))
        async with server.store.writing() as tx:
            plan = await create_plan(
                tx,
                account_id=world.account_id,
                project_id=self.project_id,
                milestone_id=None,
                title="Plan",
                lanes=lanes,
            )
            await approve_plan(tx, plan.id, Reach(world.account_id))

    async def _steer(self) -> None:
        world, random = self._world, self._world.random
        commands: tuple[Any, ...] = (Pause, Pause, Resume, Resume, Resume, Cancel, Release, Retry, Retry)
        while True:
            await asyncio.sleep(random.expovariate(1 / world.faults.person_acts_seconds))
            server = world.any_server()
            lanes = world.checker.lanes
            if server is None or not lanes:
                continue
            command = random.choice(commands)(by="someone")
            # Mostly on a lane on which it does something; on any other now and then.
            wanted = FITTING[type(command)] if random.random() < 0.8 else ANY
            fitting = [lane.run for lane in lanes.values() if lane.run.state in wanted]
            if not fitting:
                continue
            run = random.choice(fitting)
            world.step("person", f"{type(command).__name__} {run.number}")
            try:
                await server.process.spawn(server.command(run.id, command))
            except (ApiError, StoreError):
                pass
            except asyncio.CancelledError:
                self.process.look()
