"""Everything that the OpenAPI document promises, tried on a running server with thousands of generated requests.

Half of the requests name things that are there, so that they get past the 404s. What a schema can't say (which ids
belong together, which cursor was given out, that 5.0 is no integer here) is taken out before, or allowed for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import ComponentInfo
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from heartlane.lanes import bounds
from heartlane.server.app import api_routes
from heartlane.server.openapi import build_document
from tests.cli.command import Served, heartlane, served

pytestmark = pytest.mark.slow
load_all_checks()

BEYOND_SCHEMAS: Final = re.compile(
    r"is not a (ticket|milestone) of |is a (closed )?ticket|must be the next_cursor|belongs to a close|"
    r"contradict each other|must be unique: lane|must name a lane of this plan|must not make a lane wait|"
    r"must be unique: tickets|is that of the ticket|needs an external_url or|belongs to the status closed|"
    r"must be that of a repository at|must name at most|characters long as JSON|names a field twice|"
    r"leads to |names the port|must not hold a user name|must name a host|is not an address that can be read|"
    r"would be one too many|which has no secret"
)
"""Messages of problems that no schema can rule out."""


HEADER: Final = ParameterLocation.HEADER
GOOD: Final = ComponentInfo(GenerationMode.POSITIVE)
EXCLUDED: Final = [
    positive_data_acceptance,  # done below, with what is beyond schemas allowed for
    ignored_auth,  # sends bad tokens by the dozen, which the brake answers with 429
]


class Target:
    """A running server with one of everything, and a client that may do all."""

    def __init__(self, server: Served, secret: str) -> None:
        self.server = server
        self.headers = {"Authorization": f"Bearer {secret}"}
        self.client = httpx.Client(base_url=server.url, headers=self.headers)
        project = self._post("/api/projects", name="Project")["project"]["id"]
        path = f"/api/projects/{project}"
        milestone = self._post(f"{path}/milestones", name="Milestone")["milestone"]["id"]
        ticket = self._post(
            f"{path}/tickets",
            title="A ticket",
            description="Something to do.",
            request_type="bug",
            priority="low",
            blocking=True,
            roles=["backend", "qa"],
        )["ticket"]["id"]
        pending = self._plan(milestone, ticket)
        run = self._post(f"/api/agents/plans/{self._plan(milestone, ticket)}/approve")["runs"][0]["id"]
        self._post(f"/api/agents/runs/{run}/claim", worker_id="w1", lease_seconds=3600)
        hook = self._post(f"{path}/webhooks", url="https://example.com/x")["webhook"]["id"]
        delivery = self._post(f"{path}/webhooks/{hook}/test")["delivery"]["id"]
        self.ids = {"projects": project, "plans": pending, "runs": run, "milestoneId": milestone, "ticketId": ticket}
        self.ids |= {"webhookId": hook, "deliveryId": delivery}

    def _post(self, path: str, **body: Any) -> Any:
        response = self.client.post(path, json=body)
        assert response.is_success, response.text
        return response.json()

    def _plan(self, milestone: str, ticket: str) -> str:
        plan_id: str = self._post("/api/agents/plan", milestoneId=milestone, ticketIds=[ticket])["plan"]["id"]
        return plan_id

    def lead(self, case: schemathesis.Case[Any]) -> None:
        """Put ids that are there into half of the requests, the same half each time."""
        noun = case.path.split("/")[2 if case.path.startswith("/api/projects") else 3 : 4][-1:]
        known = {**self.ids, "id": self.ids.get(noun[0] if noun else "", "")}
        known |= {"projectId": self.ids["projects"], "milestone_id": self.ids["milestoneId"]}
        if hash(repr(case.body)) % 2:
            for part in (case.path_parameters, case.body):
                if isinstance(part, dict):
                    for name in part.keys() & known.keys():
                        part[name] = known[name] or part[name]
            if isinstance(case.body, dict) and isinstance(case.body.get("worker_id"), str):
                case.body["worker_id"] = "w1"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("schemathesis")
    database = f"sqlite:///{folder}/heartlane.db"
    with served(database, folder, "--rate-limits", "off") as server:
        made = heartlane("token", "create", "fuzz", "--scope", "admin", HEARTLANE_DATABASE=database)
        target = Target(server, made.out.strip())
        yield target
        target.client.close()
        assert server.process.poll() is None
        log = server.log.read_text("utf-8")
        assert "request_failed" not in log
        assert "Traceback" not in log


# A stream has no end that a generated request could wait for; `test_streams` has what it refuses.
api = schemathesis.openapi.from_dict(build_document(api_routes())).exclude(operation_id="stream_run")


def whole(value: Any) -> Any:
    """The value with integral floats as integers: to a JSON schema they are the same, to us they are not."""
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@api.parametrize()
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_the_document_holds(case: schemathesis.Case[Any], target: Target) -> None:
    positive = case.meta is None or case.meta.generation.mode.is_positive
    if positive:
        target.lead(case)
        case.body = whole(case.body)
    if isinstance(case.body, dict):
        wait = case.body.get("wait_seconds")
        if isinstance(wait, int | float) and wait > 0:
            case.body["wait_seconds"] = wait * 100 if wait > bounds.WAIT_SECONDS_MAX else 0
    # The token goes in unless leaving it out, or sending another, is what this case is about.
    token_is_the_case = case.meta is not None and not case.meta.components.get(HEADER, GOOD).mode.is_positive
    headers = {} if token_is_the_case else target.headers
    response = case.call(base_url=target.server.url, headers=headers, timeout=20)
    case.validate_response(response, headers=headers, excluded_checks=EXCLUDED)
    if positive and response.status_code == 400:
        problems = [issue["message"] for issue in response.json()["issues"]]
        assert all(BEYOND_SCHEMAS.search(problem) for problem in problems), problems
