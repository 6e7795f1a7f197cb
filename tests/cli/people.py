"""A server for tests of the verbs for people, and those verbs run in this process as somebody with a token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.cli.command import Ended, here, served


class People(NamedTuple):
    """Who runs a fleet: a server's address, a token of scope admin, and a client of the API to set things up with."""

    url: str
    token: str
    api: httpx.Client

    def run(self, *arguments: str, **variables: str) -> Ended:
        """`heartlane ARGUMENTS…` as that person."""
        return here(*arguments, **{"HEARTLANE_URL": self.url, "HEARTLANE_TOKEN": self.token, **variables})

    def json(self, *arguments: str) -> Any:
        """The same with `--json`; what it printed."""
        ended = self.run(*arguments, "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out)

    def project(self, name: str) -> str:
        """A new project's id."""
        return str(self.post("/api/projects", name=name)["project"]["id"])

    def lanes(self, project_id: str, *keys: str, **fields: Any) -> dict[str, str]:
        """The runs of a new, approved plan: lane key → run id."""
        lanes = [{"laneKey": key, "title": f"Lane {key}", "role": "backend", **fields} for key in keys]
        plan = self.post("/api/agents/plan", projectId=project_id, title=f"Plan of {keys[0]}", lanes=lanes)["plan"]
        runs = self.post(f"/api/agents/plans/{plan['id']}/approve")["runs"]
        return {run["lane_key"]: run["id"] for run in runs}

    def claim(self, run_id: str, worker_id: str = "w1") -> None:
        """Let a worker claim a lane."""
        self.post(f"/api/agents/runs/{run_id}/claim", worker_id=worker_id)

    def report(self, run_id: str, *events: tuple[str, dict[str, Any]], worker_id: str = "w1", **fields: Any) -> None:
        """Let it report."""
        told = [{"type": kind, "payload": payload} for kind, payload in events]
        self.post(f"/api/agents/runs/{run_id}/events", worker_id=worker_id, events=told, **fields)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """A POST that must go well."""
        answer = self.api.post(path, json=body) if body else self.api.post(path)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def people(folder: Path) -> Iterator[People]:
    """A server of one's own, and somebody with a token for everything."""
    database = f"sqlite:///{folder / 'heartlane.sqlite3'}"
    made = here("token", "create", "me", "--scope", "admin", HEARTLANE_DATABASE=database)
    assert made.code == 0, made
    token = made.out.strip()
    with (
        served(database, folder, "--rate-limits", "off") as server,
        httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}, timeout=30) as api,
    ):
        yield People(server.url, token, api)
