"""The OpenAPI document: valid, complete, and what is served; and the pages around it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from jsonschema_rs import Draft202012Validator
from pydantic import BaseModel
from schemathesis.specs.openapi import definitions

from heartlane.server.app import api_routes
from heartlane.server.docs_page import POLICY
from heartlane.server.openapi import HOT, HOT_PATHS, build_document
from heartlane.server.openapi_security import SIGNED, TOKEN_ALONE
from heartlane.wire.errors import CODES
from heartlane.wire.examples import ANSWERS, REQUESTS
from tests.harness import Harness

DOCUMENT = build_document(api_routes())
OPERATIONS: list[tuple[str, str, dict[str, Any]]] = [
    (method, path, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
]
EACH = pytest.mark.parametrize(
    ("path", "operation"), [pytest.param(path, each, id=each["operationId"]) for _, path, each in OPERATIONS]
)

CONTRACT = {
    "/api/agents/plan": {"post"},
    "/api/agents/plans": {"get"},
    "/api/agents/plans/{id}": {"get"},
    "/api/agents/plans/{id}/prompts": {"get"},
    "/api/agents/plans/{id}/approve": {"post"},
    "/api/agents/plans/{id}/reject": {"post"},
    "/api/agents/runs": {"get"},
    "/api/agents/runs/claim": {"post"},
    "/api/agents/runs/{id}": {"get"},
    "/api/agents/runs/{id}/events": {"get", "post"},
    "/api/agents/runs/{id}/stream": {"get"},
    "/api/agents/stream": {"get"},
    "/api/agents/runs/{id}/claim": {"post"},
    "/api/agents/runs/{id}/release": {"post"},
    "/api/agents/runs/{id}/pause": {"post"},
    "/api/agents/runs/{id}/resume": {"post"},
    "/api/agents/runs/{id}/cancel": {"post"},
    "/api/agents/runs/{id}/retry": {"post"},
    "/api/agents/workers": {"get"},
    "/api/audit": {"get"},
    "/api/login-links": {"post"},
    "/api/me": {"get"},
    "/api/sessions": {"get"},
    "/api/sessions/{id}": {"delete"},
    "/api/projects": {"get", "post"},
    "/api/projects/{id}": {"get", "patch"},
    "/api/projects/{id}/milestones": {"get", "post"},
    "/api/projects/{id}/milestones/{milestoneId}": {"get", "patch"},
    "/api/projects/{id}/tickets": {"get", "post", "put"},
    "/api/agents/overview": {"get"},
    "/api/projects/{id}/budget": {"get", "put"},
    "/api/projects/{id}/budget/go-on": {"post"},
    "/api/projects/{id}/github": {"delete", "get", "put"},
    "/api/projects/{id}/github/import": {"post"},
    "/api/hooks/github": {"post"},
    "/api/projects/{id}/tickets/batch": {"post"},
    "/api/projects/{id}/tickets/{ticketId}": {"get", "patch"},
    "/api/projects/{id}/webhooks": {"get", "post"},
    "/api/projects/{id}/webhooks/{webhookId}": {"get", "patch", "delete"},
    "/api/projects/{id}/webhooks/{webhookId}/secret": {"post"},
    "/api/projects/{id}/webhooks/{webhookId}/test": {"post"},
    "/api/projects/{id}/webhooks/{webhookId}/deliveries": {"get"},
    "/api/projects/{id}/webhooks/{webhookId}/deliveries/{deliveryId}": {"get"},
    "/api/projects/{id}/webhooks/{webhookId}/deliveries/{deliveryId}/resend": {"post"},
    "/api/projects/{id}/notice-rules": {"get", "put"},
    "/api/agents/notices": {"get"},
    "/api/agents/notices/{id}/dismiss": {"post"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/openapi.json": {"get"},
    "/schemas/plan.json": {"get"},
    "/docs": {"get"},
    "/": {"get"},
}


def errors_of(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value by a schema of the document."""
    validator = Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]}, validate_formats=True, ignore_unknown_formats=False
    )
    return [error.message for error in validator.iter_errors(value)]


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    definitions.OPENAPI_31_VALIDATOR.validate(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    text = str(DOCUMENT)
    for reference in set(re.findall(r"'#/([^']+)'", text)):
        node = DOCUMENT
        for part in reference.split("/"):
            assert part in node, reference
            node = node[part]
    used = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert used == set(DOCUMENT["components"]["schemas"])


def test_it_has_every_route_of_the_contract_and_no_other() -> None:
    documented = {path: set(item) for path, item in DOCUMENT["paths"].items()}
    assert documented == CONTRACT


def test_what_is_documented_is_what_is_served() -> None:
    served = {
        (method.lower(), route.path)
        for route in api_routes()
        if route.include_in_schema
        for method in route.methods or ()
    }
    served |= {("post", path) for path in HOT_PATHS}
    assert served == {(method, path) for method, path, _ in OPERATIONS}


def test_names_are_unique_and_examples_belong_to_operations() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert set(ANSWERS) <= set(names)
    assert set(REQUESTS) == {each["operationId"] for _, _, each in OPERATIONS if "requestBody" in each}


@EACH
def test_each_operation_says_what_it_is(path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert len(operation["tags"]) == 1
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation["description"]
    placeholders = set(re.findall(r"\{(\w+)\}", path))
    assert {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"} == placeholders
    limited = path.startswith("/api/") and operation["operationId"] not in SIGNED
    ways = operation["security"]
    assert ways[:1] == ([{"token": []}] if limited else [])
    if limited and operation["operationId"] not in TOKEN_ALONE:
        reads = operation is DOCUMENT["paths"][path].get("get")
        assert ways[1:] == [{"session": []} if reads else {"session": [], "csrf": []}]
    assert ("x-scope" in operation) == limited


@EACH
def test_each_operation_has_valid_examples(path: str, operation: dict[str, Any]) -> None:
    bodies = operation.get("requestBody", {}).get("content", {})
    for media in bodies.values():
        assert media["examples"]
        for example in media["examples"].values():
            assert errors_of(media["schema"], example["value"]) == []
    for status, response in operation["responses"].items():
        for kind, media in response.get("content", {}).items():
            if kind != "application/json" or path == "/openapi.json":
                continue
            examples = [each["value"] for each in media.get("examples", {}).values()]
            examples += [media["example"]] if "example" in media else []
            assert examples, status
            for example in examples:
                assert errors_of(media["schema"], example) == [], status


@EACH
def test_each_operation_has_all_its_errors(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    found = {
        code
        for status, response in responses.items()
        if not status.startswith("2")
        for code in response["content"]["application/json"]["examples"]
    }
    for code in found:
        assert str(CODES[code].status) in responses
    expected = {"INTERNAL_ERROR"}
    if path.startswith("/api/"):
        expected |= {"NOT_AUTHENTICATED", "RATE_LIMITED", "UNAVAILABLE"}
        if operation["operationId"] not in SIGNED:
            expected |= {"TOKEN_EXPIRED", "TOKEN_REVOKED"}
        for name in ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"):
            assert all(name in response["headers"] for response in responses.values())
        assert "Retry-After" in responses["429"]["headers"]
        assert "WWW-Authenticate" in responses["401"]["headers"]
    if operation.get("x-scope", "viewer") != "viewer":
        expected.add("FORBIDDEN")
    if operation.get("parameters"):
        expected.add("INVALID_REQUEST")
    if "requestBody" in operation:
        expected |= {"INVALID_REQUEST", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}
    if "{" in path:
        expected.add("NOT_FOUND")
    assert expected <= found


def test_every_error_code_can_be_answered_somewhere() -> None:
    documented = {
        code
        for _, _, operation in OPERATIONS
        for response in operation["responses"].values()
        for code in response.get("content", {}).get("application/json", {}).get("examples", {})
    }
    # The method is wrong for a path, not for an operation.
    assert set(CODES) - documented == {"METHOD_NOT_ALLOWED"}


def test_hot_bodies_are_documented_by_the_models_that_read_them() -> None:
    for hot in HOT:
        assert issubclass(hot.body, BaseModel)
        documented = DOCUMENT["components"]["schemas"][hot.body.__name__]
        assert set(documented["properties"]) == set(hot.body.model_fields)
    report = DOCUMENT["components"]["schemas"]["ReportBody"]["properties"]
    assert (report["worker_id"]["minLength"], report["worker_id"]["maxLength"]) == (1, 200)
    assert (report["lease_seconds"]["minimum"], report["lease_seconds"]["maximum"]) == (1, 3600)
    assert (report["phase"]["maxLength"], report["log_line"]["maxLength"]) == (200, 2000)
    assert report["events"]["maxItems"] == 100


# --- pages ---------------------------------------------------------------------------------------------------------


async def test_the_document_is_served_and_cached(harness: Harness) -> None:
    nobody = harness.client_with(None)
    response = await nobody.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == DOCUMENT
    again = await nobody.get("/openapi.json", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_reader_loads_nothing_from_elsewhere(harness: Harness) -> None:
    nobody = harness.client_with(None)
    page = await nobody.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "'unsafe" not in POLICY
    assert "{{" not in page.text
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|<style|\sstyle=|javascript:", page.text)
    loaded = re.findall(r'<(?:link|script)[^>]*(?:href|src)="([^"]+)"', page.text)
    assert loaded
    for address in loaded:
        if not address.startswith("data:"):
            assert address.startswith("/static/")
            await check_asset(await nobody.get(address))


async def check_asset(response: httpx.Response) -> None:
    assert response.status_code == 200
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
    assert not re.search(r"https?://|@import|innerHTML|insertAdjacentHTML|document\.write|\beval\b", response.text)


async def test_health_needs_no_token_and_api_does(harness: Harness) -> None:
    nobody = harness.client_with(None)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await nobody.get(path)).status_code == 200, path
    for method, path, operation in OPERATIONS:
        if operation["security"]:
            response = await nobody.request(method, path.replace("{id}", "x"))
            assert response.status_code == 401, path
