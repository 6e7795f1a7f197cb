"""The claim routes: the best lane that fits, waited for if need be, or one certain lane."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any, Final

import orjson

from heartlane.lanes.commands import Claim
from heartlane.lanes.decisions import Decision
from heartlane.server.auth import Principal, require_worker
from heartlane.server.context import Context
from heartlane.server.errors import ApiError
from heartlane.server.hot import ClientGone, HotRequest, HotRoute, read_body, refuse, until_gone
from heartlane.server.run_details import with_details
from heartlane.server.telemetry import run_id
from heartlane.store.batch import ClaimNext, Outcome
from heartlane.store.pages import Reach
from heartlane.store.projects import read_project
from heartlane.wire.requests import ClaimBody, ClaimNextBody
from heartlane.wire.run_json import JSON_OPTIONS

POLL_SECONDS: Final = 5.0
"""A waiting claim looks by itself this often, in case a wake-up was lost on its way."""

SECOND_LOOK_SECONDS: Final = 0.05
"""A lane that others had locked just then and left as it was (a report that came too late, say) opens without a word:
a claim that passed it over looks again this soon, and then at ever longer intervals."""


class Claims:
    """Both claim routes of one server."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.next = HotRoute(context, "claim", "worker", self._counted(self._claim_next))
        self.one = HotRoute(context, "claim", "worker", self._counted(self._claim_one))

    def _counted(self, handle: Any) -> Any:
        metrics = self._context.metrics

        async def counted(request: HotRequest) -> bytes:
            try:
                outcome: Outcome = await handle(request)
            except ApiError:
                metrics.claims["refused"].inc()
                raise
            except ClientGone:
                raise
            except Exception:
                metrics.claims["failed"].inc()
                raise
            metrics.claims["empty" if outcome.run is None else "claimed"].inc()
            return await self._answer(outcome)

        return counted

    async def _answer(self, outcome: Outcome) -> bytes:
        run = outcome.run
        answer: dict[str, Any] = {
            "ok": True,
            "run": None,
            "last_seq": 0,
            "words": outcome.words,
            "server_time": outcome.now,
        }
        if run is not None:
            answer["last_seq"] = run.last_seq
            answer["run"] = await with_details(self._context.store, run, outcome.now)
        return orjson.dumps(answer, option=JSON_OPTIONS)

    async def _claim_one(self, request: HotRequest) -> Outcome:
        target = run_id(request.path_id)
        body = read_body(ClaimBody, request.body)
        require_worker(request.principal, body.worker_id)
        outcome = await self._context.store.ledger.submit(
            target,
            Claim(body.worker_id, body.lease_seconds),
            account_id=request.principal.account_id,
            project_id=request.principal.project_id,
        )
        if not isinstance(outcome.decision, Decision):
            raise refuse(outcome)
        return outcome

    async def _claim_next(self, request: HotRequest) -> Outcome:
        body = read_body(ClaimNextBody, request.body)
        require_worker(request.principal, body.worker_id)
        claim = ClaimNext(
            body.worker_id,
            body.lease_seconds,
            request.principal.account_id,
            await self._project(request.principal, body.project_id),
            tuple(sorted(set(body.roles))),
            body.labels,
            body.one_at_a_time,
        )
        presence = self._context.presence
        try:
            if body.wait_seconds:
                outcome = await self._wait(claim, body.wait_seconds, request)
            else:
                outcome = await self._context.store.ledger.claim_next(claim)
                if outcome.run is None:
                    presence.asks(claim, 0)
        except ClientGone:
            presence.asks_no_more(claim)
            raise
        if outcome.run is not None:
            presence.asks_no_more(claim)
        return outcome

    async def _project(self, principal: Principal, wanted: str | None) -> str | None:
        """The project that the claim is limited to. Raises the 404 of one that the caller can't see."""
        if wanted is None or wanted == principal.project_id:
            return principal.project_id
        if principal.project_id is None:
            async with self._context.store.reading() as conn:
                if await read_project(conn, wanted, Reach(principal.account_id)) is not None:
                    return wanted
        raise ApiError("NOT_FOUND", "There is no such project.")

    async def _wait(self, claim: ClaimNext, seconds: float, request: HotRequest) -> Outcome:
        """Claim, and go on trying whenever a lane that fits opens, until the time is up or the server shuts down."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        gone = loop.create_task(until_gone(request.receive))
        closed = loop.create_task(self._context.gate.closed())
        second_look = SECOND_LOOK_SECONDS
        noted = False
        try:
            with self._context.waiters.waiting(claim) as waiter:
                while True:
                    # Before the try, not after it: a wake-up that comes while it is under way is for the next one.
                    waiter.rearm()
                    outcome = await self._context.store.ledger.claim_next(claim)
                    looked = loop.time()
                    left = deadline - looked
                    if outcome.run is not None or left <= 0 or closed.done():
                        return outcome
                    if not noted:
                        self._context.presence.asks(claim, left)
                        noted = True
                    woken = loop.create_task(waiter.woken.wait())
                    try:
                        poll = min(second_look, POLL_SECONDS) if outcome.passed_over else POLL_SECONDS
                        second_look = second_look * 2 if outcome.passed_over else SECOND_LOOK_SECONDS
                        poll *= random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
                        await asyncio.wait(
                            (woken, gone, closed), timeout=min(left, poll), return_when=asyncio.FIRST_COMPLETED
                        )
                    finally:
                        woken.cancel()
                    if gone.done():
                        raise ClientGone
                    if closed.done():
                        # No other look: every waiting claim's at once would only hold the shutdown up.
                        return outcome._replace(now=outcome.now + timedelta(seconds=loop.time() - looked))
        finally:
            gone.cancel()
            closed.cancel()
