"""Every error in the contract's one shape."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from heartlane.server.errors import ApiError, Issue, error_body, invalid_request, render, validation_error
from heartlane.wire.errors import CODES, codes_for

CONTRACT = """
INVALID_REQUEST 400 · NOT_AUTHENTICATED, TOKEN_EXPIRED, TOKEN_REVOKED, GITHUB_LINK_BROKEN 401 · FORBIDDEN 403 ·
NOT_FOUND 404 · METHOD_NOT_ALLOWED 405 · CLAIM_HELD_BY_OTHER, CLAIM_LOST, NOT_CLAIMED, STALE_ATTEMPT, RUN_FINISHED,
PLAN_APPROVED, PLAN_REJECTED, NO_LONGER_QUEUED, LANE_BLOCKED, ROLES_INCOMPLETE, NO_SECRET_KEY 409 ·
PAYLOAD_TOO_LARGE 413 · UNSUPPORTED_MEDIA_TYPE 415 · RATE_LIMITED 429 · INTERNAL_ERROR 500 · UNAVAILABLE 503
"""


def test_the_table_is_the_contracts() -> None:
    expected = {}
    for group in CONTRACT.split("·"):
        status = int(re.findall(r"\d{3}", group)[0])
        expected.update(dict.fromkeys(re.findall(r"[A-Z][A-Z_]+", group), status))
    assert {code: row.status for code, row in CODES.items()} == expected


@pytest.mark.parametrize("code", CODES)
def test_every_code_renders_in_the_one_shape(code: str) -> None:
    rendered = render(ApiError(code))
    body = orjson.loads(rendered.body)
    headers = dict(rendered.headers)
    assert rendered.status == CODES[code].status
    assert body["code"] == code
    assert body["error"].endswith(".")
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(rendered.body)
    assert (headers.get(b"www-authenticate") == b"Bearer") == (rendered.status == 401)
    assert (b"retry-after" in headers) == ("retryAfter" in body) == (rendered.status in (429, 503))
    assert set(body) <= {"error", "code", "fieldErrors", "issues", "retryAfter", "relinkGithub", "run"}


def test_a_table_row_says_what_to_do() -> None:
    for row in CODES.values():
        assert row.meaning.endswith(".")
        assert row.remedy.endswith(".")
        assert row in codes_for(row.status)


def test_retry_after_is_exact_in_the_body_and_whole_in_the_header() -> None:
    rendered = render(ApiError("UNAVAILABLE", retry_after=0.25))
    assert orjson.loads(rendered.body)["retryAfter"] == 0.25
    assert dict(rendered.headers)[b"retry-after"] == b"1"
    assert dict(render(ApiError("RATE_LIMITED", retry_after=12.01)).headers)[b"retry-after"] == b"13"


def test_what_belongs_to_a_status_goes_along() -> None:
    conflict = orjson.loads(error_body(ApiError("CLAIM_LOST", run={"id": "x", "labels": orjson.Fragment('{"a":"b"}')})))
    assert conflict["run"] == {"id": "x", "labels": {"a": "b"}}
    assert orjson.loads(error_body(ApiError("GITHUB_LINK_BROKEN", relink_github=True)))["relinkGithub"] is True
    assert (b"allow", b"GET, POST") in render(
        ApiError("METHOD_NOT_ALLOWED", headers=[(b"allow", b"GET, POST")])
    ).headers


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_no_text_makes_the_renderer_fail(path: str, message: str) -> None:
    body = orjson.loads(render(ApiError("INVALID_REQUEST", message or None, issues=[Issue(path, message)])).body)
    assert len(body["issues"]) == len(body["fieldErrors"]) == 1


# --- validation ---------------------------------------------------------------------------------------------------


class Event(BaseModel):
    type: Literal["heartbeat", "action"]
    payload: dict[str, int] | None = None


class Body(BaseModel):
    worker_id: Annotated[str, Field(strict=True, min_length=1, max_length=5)]
    lease: Annotated[int, Field(strict=True, ge=1, le=3600)] = 1
    events: Annotated[list[Event], Field(max_length=4)] = []


def refused(body: object) -> ApiError:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate(body)
    return validation_error(caught.value)


def test_all_problems_come_in_one_pass_each_with_its_path() -> None:
    error = refused({"lease": "5", "events": [{"type": "heartbeat"}, 7, {"type": "nap"}, {"payload": []}]})
    assert error.issues == [
        ("worker_id", "is required"),
        ("lease", "must be an integer"),
        ("events.1", "must be an object"),
        ("events.2.type", "must be one of heartbeat or action"),
        ("events.3.type", "is required"),
        ("events.3.payload", "must be an object"),
    ]
    assert error.error == "The request is not valid: worker_id is required (and 5 more problems)."


@pytest.mark.parametrize(
    ("body", "issue"),
    [
        (None, ("body", "must be an object")),
        ({"worker_id": ""}, ("worker_id", "must not be empty")),
        ({"worker_id": "123456"}, ("worker_id", "must be at most 5 characters long")),
        ({"worker_id": 1}, ("worker_id", "must be a string")),
        ({"worker_id": "w", "lease": 0}, ("lease", "must be at least 1")),
        ({"worker_id": "w", "lease": 3601}, ("lease", "must be at most 3600")),
        ({"worker_id": "w", "events": {}}, ("events", "must be an array")),
        ({"worker_id": "w", "events": [{"type": "action"}] * 5}, ("events", "must have at most 4 items")),
    ],
)
def test_messages_are_plain(body: object, issue: tuple[str, str]) -> None:
    assert refused(body).issues == [issue]


def test_field_errors_keep_the_first_message_of_a_path() -> None:
    body = orjson.loads(error_body(invalid_request([Issue("a", "first"), Issue("b", "other"), Issue("a", "second")])))
    assert body["fieldErrors"] == {"a": "first", "b": "other"}
    assert len(body["issues"]) == 3


def test_a_path_of_the_clients_making_is_cut() -> None:
    error = refused({"worker_id": "w", "events": [{"type": "action", "payload": {"k" * 10_000: "x"}}]})
    assert len(error.issues[0][0]) == 300
