"""Fields that a body doesn't have set nothing: not the ids, owners, states and counts that the server alone writes."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.harness import Harness
from tests.server.test_openapi import DOCUMENT
from tests.server.test_scopes import (
    CLOSED,
    ENGINES,
    World,
    without_github,  # noqa: F401 - the fixture `harness` of these tests
)

MARK: Final = "planted-7f3a"
NUMBER: Final = 918_273_645
ID: Final = "7f3a7f3a-7f3a-7f3a-8f3a-7f3a7f3a7f3a"
MOMENT: Final = "2031-02-03T04:05:06.789123Z"
PLANTED: Final[dict[str, Any]] = {
    **dict.fromkeys(("id", "run_id", "account_id", "billing_account_id", "plan_id", "token_id", "session_id"), ID),
    **dict.fromkeys(("project_id", "milestone_id", "created_by_user_id"), ID),
    **dict.fromkeys(("claimed_by", "worker_id", "last_worker_id", "status", "state", "phase", "scope", "hint"), MARK),
    **dict.fromkeys(("secret", "secrets", "hash", "token_hash", "lane_key", "actor_name", "pr_url", "error"), MARK),
    **dict.fromkeys(
        ("created_at", "updated_at", "claimed_at", "lease_expires_at", "finished_at", "expires_at"), MOMENT
    ),
    **dict.fromkeys(
        ("attempt", "seq", "failures", "event_count", "last_seq", "number", "priority", "position"), NUMBER
    ),
    **dict.fromkeys(("dismissed_by", "approved_at", "rejected_at", "stalled", "over_budget", "__class__"), MARK),
    "__proto__": {"admin": True, "x": MARK},
}


def known(schema: dict[str, Any]) -> set[str]:
    """The fields that a body of this schema has, in any of its forms."""
    if "$ref" in schema:
        return known(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    names = set(schema.get("properties", {}))
    return names.union(*(known(each) for each in schema.get("anyOf", ())))


@ENGINES
async def test_fields_that_a_body_does_not_have_set_nothing(harness: Harness) -> None:
    world = await World(harness).build()
    tried = set()
    for operation in CLOSED:
        body = world.body(operation)
        if body is None:
            continue
        item = DOCUMENT["paths"][operation.path][operation.method.lower()]
        own = known(item["requestBody"]["content"]["application/json"]["schema"])
        sent = {name: value for name, value in PLANTED.items() if name not in own} | body
        for name in ("lanes", "tickets"):
            if isinstance(body.get(name), list):
                sent[name] = [{**_beyond(each), **each} for each in body[name]]
        answer = await harness.admin.request(operation.method, world.path(operation), json=sent)
        assert answer.is_success or answer.status_code == 409, (operation.name, answer.text)
        for planted in (MARK, ID, str(NUMBER), MOMENT):
            assert planted not in answer.text, (operation.name, planted)
        tried.add(operation.name)
    assert len(tried) > 15
    after = await world.snapshot()
    for planted in (MARK, ID, str(NUMBER), MOMENT):
        assert planted not in after, planted


def _beyond(given: dict[str, Any]) -> dict[str, Any]:
    """What no item of a list has, in whichever words it is written."""
    return {name: PLANTED[name] for name in ("account_id", "claimed_by", "created_at", "event_count", "hint")}


@pytest.mark.parametrize("name", ["project_id", "billing_account_id", "id"])
async def test_a_project_stays_where_it_is_whatever_is_said(name: str, harness: Harness) -> None:
    project = await harness.project()
    changed = await harness.admin.patch(f"/api/projects/{project['id']}", json={"name": "New", name: ID})
    assert changed.status_code == 200
    assert changed.json()["project"] | {"name": "", "updated_at": ""} == project | {"name": "", "updated_at": ""}
