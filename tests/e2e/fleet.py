"""Clients of a running server: whoever sets a project up, and workers that report and remember every answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import httpx

from tests.e2e.server_process import until
from tests.harness import assert_error

Answered = TypeVar("Answered")


class Answer(httpx.AsyncByteStream):
    """The body of an answer, as it comes; when it has ended, its connection is given back."""

    def __init__(self, stream: Any, give_back: Callable[[], None]) -> None:
        self._stream = stream
        self._give_back = give_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
        self._give_back()


class Connections(httpx.AsyncBaseTransport):
    """As many connections as there are requests at once, kept for the next ones, each in a pool of its own.

    httpx's own pool looks at all its connections for each request, which costs more than the server's answer does.
    """

    def __init__(self) -> None:
        self._all: list[httpx.AsyncHTTPTransport] = []
        self._free: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._free:
            self._free.append(httpx.AsyncHTTPTransport(verify=False, trust_env=False))
            self._all.append(self._free[-1])
        connection = self._free.pop()
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            self._free.append(connection)
            raise
        response.stream = Answer(response.stream, partial(self._free.append, connection))
        return response

    async def aclose(self) -> None:
        for connection in self._all:
            await connection.aclose()


@asynccontextmanager
async def client_of(url: str, token: str | None, *, timeout: float = 30.0) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a token; it keeps connections, and never goes through a proxy. An answer may take `timeout` s."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, transport=Connections()) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    """POST a JSON body; the answer's body, of an answer with that status."""
    response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    """GET a path; the body of its 200."""
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def make_project(client: httpx.AsyncClient, **fields: Any) -> str:
    """A new project's id."""
    answer = await post(client, "/api/projects", 201, name="Project", **fields)
    return str(answer["project"]["id"])


async def make_plan(client: httpx.AsyncClient, project_id: str, lanes: int, role: str = "backend") -> str:
    """A pending plan of so many lanes: its id."""
    rows = [{"laneKey": f"lane-{n}", "title": f"Lane {n}", "role": role} for n in range(lanes)]
    answer = await post(client, "/api/agents/plan", 201, projectId=project_id, title="Plan", lanes=rows)
    return str(answer["plan"]["id"])


async def make_runs(client: httpx.AsyncClient, lanes: int, **project: Any) -> list[str]:
    """The ids of the queued runs of a new, approved plan in a new project."""
    plan_id = await make_plan(client, await make_project(client, **project), lanes)
    answer = await post(client, f"/api/agents/plans/{plan_id}/approve")
    return [run["id"] for run in answer["runs"]]


async def claim(client: httpx.AsyncClient, run_id: str, worker_id: str, **fields: Any) -> dict[str, Any]:
    """Claim one lane; the run."""
    answer = await post(client, f"/api/agents/runs/{run_id}/claim", worker_id=worker_id, **fields)
    run: dict[str, Any] = answer["run"]
    return run


async def read_run(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """A run as it is now."""
    run: dict[str, Any] = (await get(client, f"/api/agents/runs/{run_id}"))["run"]
    return run


async def read_events(client: httpx.AsyncClient, run_id: str, **query: Any) -> list[dict[str, Any]]:
    """All events of a run, by seq."""
    events: list[dict[str, Any]] = []
    after: str | int = 0
    while True:
        page = await get(client, f"/api/agents/runs/{run_id}/events", limit=200, after=after, **query)
        events += page["events"]
        if page["next_cursor"] is None:
            return events
        after = page["next_cursor"]


async def expired(client: httpx.AsyncClient, run_id: str) -> dict[str, Any] | None:
    """The event of a run's first lease that ran out and was taken back, if one was."""
    events = await read_events(client, run_id, type="lease_expired")
    return events[0] if events else None


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """One figure of a server, as Prometheus reads it."""
    response = await client.get("/metrics")
    assert response.status_code == 200, response.text
    return next(float(line.split()[1]) for line in response.text.splitlines() if line.startswith(f"{name} "))


async def gather_in_ledger(
    client: httpx.AsyncClient, requests: Iterable[Coroutine[Any, Any, Answered]], waiting: int
) -> list[asyncio.Task[Answered]]:
    """Send requests, while nothing is committed, until so many wait behind those that each committer has taken."""
    sent = []
    for request in requests:
        sent.append(asyncio.create_task(request))
        await asyncio.sleep(0.005)
        if await metric(client, "heartlane_ledger_queue") >= waiting:
            return sent
    raise AssertionError(f"never were {waiting} waiting")


def assert_unavailable(response: httpx.Response) -> None:
    """A 503 in the contract's shape, with `retryAfter`."""
    assert_error(response, 503, "UNAVAILABLE")


class Reporter:
    """A worker that holds one lane, numbers its reports, and sends each again until it is answered 200.

    acknowledged    marks of the events that were answered 200, in order
    refusals        the 503s on the way
    lost            how many times there was no answer at all
    """

    def __init__(self, client: httpx.AsyncClient, run_id: str, worker_id: str, chance: random.Random) -> None:
        self.client = client
        self._chance = chance
        self.run_id = run_id
        self.worker_id = worker_id
        self.attempt = 0
        self.seq = 0
        self.acknowledged: list[str] = []
        self.duplicates = 0
        self.refusals: list[httpx.Response] = []
        self.lost = 0

    async def claim(self, lease_seconds: int = 300) -> None:
        """Claim the lane."""
        run = await claim(self.client, self.run_id, self.worker_id, lease_seconds=lease_seconds)
        self.attempt = run["attempt"]

    async def report(self, giving_up: asyncio.Event | None = None) -> bool:
        """Send the next report, with one to five events; whether it was answered 200 before `giving_up`."""
        self.seq += 1
        marks = [f"{self.run_id}:{self.seq}:{index}" for index in range(self._chance.randint(1, 5))]
        body = {
            "worker_id": self.worker_id,
            "attempt": self.attempt,
            "seq": self.seq,
            "phase": f"phase {self.seq}",
            "events": [{"type": "action", "payload": {"mark": mark}} for mark in marks],
        }
        while giving_up is None or not giving_up.is_set():
            try:
                response = await self.client.post(f"/api/agents/runs/{self.run_id}/events", json=body)
            except httpx.TransportError:
                self.lost += 1
                await asyncio.sleep(0.05)
                continue
            if response.status_code == 503:
                self.refusals.append(response)
                assert_unavailable(response)
                await asyncio.sleep(min(0.2, response.json()["retryAfter"]))
                continue
            assert response.status_code == 200, response.text
            self.duplicates += response.json()["duplicate"]
            self.acknowledged += marks
            return True
        return False

    async def report_until(self, stopping: asyncio.Event, *, giving_up: bool = False) -> None:
        """Report one after the other until told to stop. The last one is sent until it is answered, unless `giving_up`:
        then it isn't sent again."""
        while not stopping.is_set():
            await self.report(stopping if giving_up else None)

    async def assert_nothing_lost(self, client: httpx.AsyncClient, *, all_answered: bool = True) -> int:
        """Every acknowledged event is in the log once and in order, and the run agrees with its log.

        all_answered    nothing but the acknowledged may be there; else what was sent last may be, whole
        Returns how many events the log holds.
        """
        events = await read_events(client, self.run_id)
        run = await read_run(client, self.run_id)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert run["event_count"] == len(events)
        marks = [event["payload"]["mark"] for event in events if event["type"] == "action"]
        assert marks[: len(self.acknowledged)] == self.acknowledged
        rest = marks[len(self.acknowledged) :]
        assert not rest or (not all_answered and {mark.split(":")[1] for mark in rest} == {str(self.seq)}), rest
        assert all(event["attempt"] == self.attempt for event in events)
        last = marks[-1].split(":")[1] if marks else None
        assert run["phase"] == (f"phase {last}" if last else None)
        return len(events)


async def make_reporters(
    client: httpx.AsyncClient, count: int, chance: random.Random, lease_seconds: int = 300
) -> list[Reporter]:
    """So many reporters, each with a lane that it holds."""
    run_ids = await make_runs(client, count)
    reporters = [Reporter(client, run_id, f"worker-{n}", chance) for n, run_id in enumerate(run_ids)]
    await asyncio.gather(*(reporter.claim(lease_seconds) for reporter in reporters))
    return reporters


async def assert_all_there(client: httpx.AsyncClient, reporters: Sequence[Reporter]) -> int:
    """`assert_nothing_lost` of all; how many events the logs hold together."""
    return sum([await reporter.assert_nothing_lost(client) for reporter in reporters])


async def all_go_on(reporters: Sequence[Reporter], timeout: float = 30.0) -> None:
    """Wait until each of them has been answered once more."""
    before = [len(reporter.acknowledged) for reporter in reporters]
    await until(
        lambda: all(len(reporter.acknowledged) > count for reporter, count in zip(reporters, before, strict=True)),
        "another answer to everybody",
        timeout,
    )
