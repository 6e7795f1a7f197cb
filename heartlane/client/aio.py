"""The client for asyncio. (`heartlane.client.sync` is the same, for everybody else.)"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal, Self, TypeVar
from uuid import UUID

import httpx

from heartlane import __version__
from heartlane.client.call import Call, Id, Page, query_of, read_answer, read_error
from heartlane.client.claiming import Wanted, WorkerIds, claim_anew, give_back_lost
from heartlane.client.clock import sleepless
from heartlane.client.errors import BadAnswer, HeartlaneError, NoLane, Unreachable
from heartlane.client.following import Told, follow, follow_work
from heartlane.client.lane import AsyncLane, Claims, Keeping, OnError, PendingLane
from heartlane.client.retry import RetryPolicy, next_wait
from heartlane.client.routes import Routes
from heartlane.client.settings import server_token, server_url, tls_context
from heartlane.lanes.bounds import LEASE_SECONDS_DEFAULT
from heartlane.wire.answers import EventObject, RunObject
from heartlane.wire.names import EventName, RoleName

T = TypeVar("T")

CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 45.0
"""A stream that says nothing for this long is dead: the server sends a sign of life every 15 s."""
CLOSE_SECONDS: Final = 15.0
RETRY: Final = RetryPolicy()
NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class AsyncClient(Routes):
    """Talks to one Heartlane server. Use it as `async with AsyncClient() as client:`, in one event loop.

    url, token      left out: from HEARTLANE_URL and HEARTLANE_TOKEN, else as `heartlane login` keeps them
    worker_id       who claims; left out: a name that no other process has
    verify          how the server's certificate is checked: by the common authorities, by those in a file or folder, by
                    a context of your own; False: not at all
    retry           how long calls that failed are made again, where that is safe
    trust_env       whether HTTP_PROXY and the like, and SSL_CERT_FILE, count
    transport       how requests travel, for tests
    clock, chance   what leases are counted by and waits are spread by, for tests

    Raises NotConfigured.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        worker_id: str | None = None,
        verify: ssl.SSLContext | str | os.PathLike[str] | bool = True,
        retry: RetryPolicy = RETRY,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = sleepless,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.url = server_url(url)
        self.retry = retry
        self.clock = clock
        self.chance = chance
        self._token = server_token(token, self.url)
        self._workers = WorkerIds(worker_id)
        self._lanes: set[AsyncLane] = set()
        self._doubted: set[tuple[UUID, int]] = set()  # attempts that were let go without the server's word
        self._chores: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncClient(
            verify=tls_context(verify),
            trust_env=trust_env,
            transport=transport,
            follow_redirects=False,
            headers={"user-agent": f"heartlane-python/{__version__}", "accept": "application/json"},
            # No bound on connections: a renewal never waits for one that something else has in hand.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def worker_id(self) -> str:
        """Who claims. A second lane that is held at the same time has a `/2` behind it, and so on."""
        return self._workers.name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release the lanes that are still held, and close the connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(
                    *(lane.leave("the client was closed") for lane in list(self._lanes)),
                    *self._chores,
                    return_exceptions=True,
                )
        await self.disconnect()

    async def disconnect(self) -> None:
        """Close the connections; lanes that are still held are not given back."""
        await self._http.aclose()

    # --- calls ---

    async def send(self, call: Call[T]) -> T:
        """The answer to a call, made again as `retry` says where that is safe. Raises HeartlaneError."""
        began, tries = self.clock(), 0
        while True:
            try:
                return await self.send_once(call)
            except HeartlaneError as error:
                tries += 1
                wait = next_wait(
                    self.retry,
                    error,
                    repeatable=call.repeatable,
                    tries=tries,
                    spent=self.clock() - began,
                    chance=self.chance(),
                )
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def send_once(self, call: Call[T], *, seconds: float | None = None) -> T:
        """The answer to a call, tried once, within `seconds` (left out: the call's own). Raises HeartlaneError."""
        seconds = call.seconds if seconds is None else seconds
        content = call.content()
        headers = self._headers({} if content is None else {"content-type": "application/json"})
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.request(
                    call.method,
                    self.url + call.path,
                    params=call.query or None,
                    content=content,
                    headers=headers,
                    timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
                )
        except TimeoutError:
            raise Unreachable(f"{self.url} didn't answer within {seconds:g} s.", sent=True) from None
        except httpx.RequestError as error:
            raise self._unreachable(error) from None
        try:
            return read_answer(call, response.status_code, response.headers, response.content)
        except BadAnswer as error:
            # Its text shows how the answer begins, and there are proxies whose pages repeat the request.
            shown = self._token.hide_in(str(error))
            raise BadAnswer(shown, status=error.status, retry_after=error.retry_after) from None

    async def pages(self, call: Call[Page[T]]) -> AsyncGenerator[T, None]:
        """The items of a list, page by page. Raises HeartlaneError."""
        while True:
            page = await self.send(call)
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            call = call.at(page.next_cursor)

    def stream(
        self, run_id: Id, *, after: int = 0, heartbeats: bool = False, give_up_seconds: float | None = None
    ) -> AsyncGenerator[RunObject | EventObject, None]:
        """Follow a run: itself now and after each change, and each event behind the `seq` after, without end.

        What breaks is opened again where it was, and nothing is missed or told twice. `give_up_seconds`: how long that
        is tried in vain before it raises; left out: for ever.
        """
        return follow(self, run_id, after=after, heartbeats=heartbeats, give_up_seconds=give_up_seconds)

    def follow(
        self,
        project_id: Id | None = None,
        *,
        cursor: str | None = None,
        messages: Sequence[Literal["run", "event", "plan"]] = (),
        types: Sequence[EventName] = (),
        heartbeats: bool = False,
        leases: bool = False,
        give_up_seconds: float | None = None,
    ) -> AsyncGenerator[Told, None]:
        """Follow all work of a project, or of everything that the token sees, without end.

        It yields runs and plans as they are after a change, each event once and in order, renewed leases where asked
        for, and a `Reset` where the lists are to be loaded: at the begin, and where too much was missed.

        cursor              where to go on: of the last event or reset that was dealt with; left out: from now on
        messages, types     only these kinds of messages, only events of these types; left out: all
        give_up_seconds     how long to try in vain to open it again before it raises; left out: for ever
        """
        query = query_of(project_id=project_id, heartbeats=heartbeats or None, leases=leases or None)
        query += (*(("message", name) for name in messages), *(("type", name) for name in types))
        return follow_work(self, query, cursor=cursor, give_up_seconds=give_up_seconds)

    @asynccontextmanager
    async def open_stream(
        self, path: str, query: tuple[tuple[str, str], ...], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An event stream's bytes as they come. Raises HeartlaneError, also while they are read."""
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        asked = {**headers, "accept": "text/event-stream", "cache-control": "no-store"}
        try:
            async with self._http.stream(
                "GET", self.url + path, params=query or None, headers=self._headers(asked), timeout=timeout
            ) as response:
                if response.status_code != 200:
                    content = await response.aread()
                    raise read_error(f"GET {path}", response.status_code, response.headers, content)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise BadAnswer(f"GET {path} was answered with no event stream.", status=response.status_code)
                yield response.aiter_raw()
        except httpx.RequestError as error:
            raise self._unreachable(error) from None

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**more, "authorization": f"Bearer {self._token.reveal()}"}

    def _unreachable(self, error: httpx.RequestError) -> Unreachable:
        why = self._token.hide_in(str(error)) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            why = "it took too long"
        return Unreachable(f"No answer from {self.url}: {why}.", sent=not isinstance(error, NOT_SENT))

    # --- lanes ---

    def claim(
        self,
        run_id: Id | None = None,
        *,
        role: RoleName | None = None,
        roles: Sequence[RoleName] = (),
        labels: Mapping[str, str] | None = None,
        project_id: Id | None = None,
        lease_seconds: int = LEASE_SECONDS_DEFAULT,
        wait_seconds: float | None = 0.0,
        worker_id: str | None = None,
        on_error: OnError = "release",
        outage_seconds: float = 0.0,
        follow: bool = True,
    ) -> PendingLane:
        """Claim a lane and keep it: `async with client.claim(role="backend") as lane:`, or `lane = await …`.

        run_id              that very lane; left out: the best that fits role(s), labels and project
        wait_seconds        how long to wait for one; None: until there is one. Raises NoLane when none has come
        worker_id           who claims it; left out: the client's, with a number behind it for a second lane
        on_error            what becomes of the lane when the block ends by an exception: `release` gives it back and
                            counts a failure, `fail` ends it
        outage_seconds      how long past the end of the lease to wait for a server that doesn't answer. Meanwhile
                            `lane.paused` is set, and what the body tells waits; 0: the lane counts as lost at once
        follow              whether to follow the lane's stream, to hear of a pause or cancel at once
        """
        wanted = Wanted(
            run_id,
            (role, *roles) if role is not None else tuple(roles),
            labels or {},
            project_id,
            lease_seconds,
            wait_seconds,
        )
        return PendingLane(lambda: self._claim(wanted, worker_id, Keeping(on_error, outage_seconds, follow)))

    claims = Claims(claim)

    async def _claim(self, wanted: Wanted, worker_id: str | None, keeping: Keeping) -> AsyncLane:
        who = self._workers.take() if worker_id is None else worker_id
        try:
            claimed = await claim_anew(self, wanted, who, self._doubted)
            if claimed is None:
                raise NoLane("There was no lane to claim.")
            lane = AsyncLane(self, claimed, keeping, wanted.lease_seconds, self._forget)
            self._lanes.add(lane)
        except asyncio.CancelledError:
            self.do_later(self._clear_up(who))
            raise
        except BaseException:
            self._workers.give_back(who)
            raise
        lane.begin()
        return lane

    async def _clear_up(self, worker_id: str) -> None:
        try:
            await give_back_lost(self, worker_id)
        finally:
            self._workers.give_back(worker_id)

    def _forget(self, lane: AsyncLane) -> None:
        self._lanes.discard(lane)
        lost = lane.lost_reason
        if lane.outcome is None or (lost is not None and lost.code is None):
            self._doubted.add((lane.run.id, lane.attempt))
        self._workers.give_back(lane.worker_id)

    def do_later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside all else; the client isn't closed before."""

        async def quietly() -> None:
            with suppress(HeartlaneError):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
