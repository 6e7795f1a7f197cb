"""Bad input, of every kind, on every route that takes a body: the contract's error, and nothing changed.

The cases are made from the OpenAPI document: for each field of each body, everything its schema forbids. So the test
also holds the document to what is served.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from heartlane.server import auth
from heartlane.server.app import api_routes
from heartlane.server.openapi import build_document
from tests.harness import Harness, assert_error

DOCUMENT = build_document(api_routes())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
NOBODY = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"

WRONG_TYPES: dict[str, list[Any]] = {
    "string": [5, True, [], {}],
    "integer": ["5", 5.0, 5.5, True, [], {}],
    "number": ["5", True, [], {}],
    "boolean": ["true", 1, 0, [], {}],
    "array": ["x", 5, True, {}],
    "object": ["x", 5, True, []],
}
WRONG_FORMATS = {
    "uuid": ["", "5", NOBODY[:-1], f"{{{NOBODY}}}", NOBODY.replace("-", ""), NOBODY + "\n", f" {NOBODY}"],
    "date-time": [
        "",
        "yesterday",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04:05Z\n",
        "٢٠٢٦-01-02T03:04:05Z",
    ],
}


class Bad(NamedTuple):
    """A value that a field must not have, and where the answer has to find fault."""

    path: str
    body: Any


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return resolve(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    return schema


def alternatives(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema beside null, and whether null is allowed."""
    schema = resolve(schema)
    if "anyOf" in schema:
        others = [each for each in schema["anyOf"] if each != {"type": "null"}]
        return resolve(others[0]), len(others) < len(schema["anyOf"])
    if isinstance(schema.get("type"), list):
        return {**schema, "type": "any"}, "null" in schema["type"]
    return schema, False


def bad_values(schema: dict[str, Any], good: Any) -> Iterator[tuple[str, Any]]:
    """Everything that a schema forbids in place of `good`: the path below it (with a leading dot), and the value."""
    at, nullable = alternatives(schema)
    if not nullable:
        yield "", None
    kind = at.get("type", "any")
    for value in WRONG_TYPES.get(kind, []):
        yield "", value
    if kind == "any":
        yield "", 5
    if "enum" in at:
        yield "", "nonsense"
        yield "", ""
    for value in WRONG_FORMATS.get(at.get("format", ""), []):
        yield "", value
    if kind == "string" and at.get("pattern", "").startswith("^[^\\u0000"):
        yield "", "five\0five\0" * max(1, at.get("minLength", 1) // 10)
    if "maxLength" in at:
        yield "", "x" * (at["maxLength"] + 1)
    if at.get("minLength"):
        yield "", "x" * (at["minLength"] - 1)
    for bound, step in (("minimum", -1), ("maximum", 1)):
        if bound in at:
            yield "", at[bound] + step
    if kind in ("integer", "number"):
        yield "", 10**30
    if kind == "array":
        yield from bad_items(at, good)
    elif kind == "object" and "properties" in at:
        for path, value in bad_fields(at, good or {}):
            yield f".{path}", value
    elif kind == "object" and isinstance(at.get("additionalProperties"), dict):
        yield from bad_entries(at, good)


def bad_items(schema: dict[str, Any], good: Any) -> Iterator[tuple[str, Any]]:
    item = good[0] if good else example_of(schema["items"])
    if "maxItems" in schema:
        yield "", [item] * (schema["maxItems"] + 1)
    if schema.get("minItems"):
        yield "", []
    for path, value in bad_values(schema["items"], item):
        yield f".1{path}", [item, value]


def bad_entries(schema: dict[str, Any], good: Any) -> Iterator[tuple[str, Any]]:
    name, value = next(iter(good.items())) if good else ("key", example_of(schema["additionalProperties"]))
    if "maxProperties" in schema:
        yield "", {f"key-{number}": value for number in range(schema["maxProperties"] + 1)}
    keys = schema.get("propertyNames", {})
    if "enum" in keys:
        yield ".nonsense", {"nonsense": value}
    if "maxLength" in keys:
        long = "k" * (keys["maxLength"] + 1)
        yield f".{long}", {long: value}
        yield ".", {"": value}
        yield ".nul\0", {"nul\0": value}
    for path, bad in bad_values(schema["additionalProperties"], value):
        yield f".{name}{path}", {name: bad}


def bad_fields(schema: dict[str, Any], good: dict[str, Any]) -> Iterator[Bad]:
    for name, field in schema["properties"].items():
        for path, value in bad_values(field, good.get(name)):
            yield Bad(f"{name}{path}", {**good, name: value})
    for name in schema.get("required", ()):
        yield Bad(name, {key: value for key, value in good.items() if key != name})


def example_of(schema: dict[str, Any]) -> Any:
    at = alternatives(schema)[0]
    if "enum" in at:
        return at["enum"][0]
    if at.get("format") == "uuid":
        return NOBODY
    if at.get("type") == "object":
        return {name: example_of(at["properties"][name]) for name in at.get("required", ())}
    return {"string": "x" * max(1, at.get("minLength", 1)), "integer": 1, "number": 1, "boolean": True}.get(at["type"])


class World:
    """A server with one of everything, and a way to tell whether anything changed."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.ids: dict[str, str] = {}

    async def build(self) -> World:
        admin = self.harness.admin
        project = await self.harness.project()
        path = f"/api/projects/{project['id']}"
        milestone = (await admin.post(f"{path}/milestones", json={"name": "Milestone"})).json()["milestone"]
        ticket = await admin.post(
            f"{path}/tickets",
            json={
                "title": "A ticket",
                "description": "Something to do.",
                "request_type": "bug",
                "priority": "low",
                "blocking": True,
            },
        )
        run = (await self.harness.approved(1, project_id=project["id"]))[0]
        await self.harness.claim(run["id"])
        lanes = [{"laneKey": "a", "title": "A", "role": "qa"}]
        plan = await admin.post(
            "/api/agents/plan", json={"projectId": project["id"], "title": "Pending", "lanes": lanes}
        )
        hook = (await admin.post(f"{path}/webhooks", json={"url": "https://example.com/x"})).json()["webhook"]
        delivery = (await admin.post(f"{path}/webhooks/{hook['id']}/test")).json()["delivery"]
        self.ids = {
            "project": project["id"],
            "webhookId": hook["id"],
            "deliveryId": delivery["id"],
            "milestoneId": milestone["id"],
            "ticketId": ticket.json()["ticket"]["id"],
            "run": run["id"],
            "plan": plan.json()["plan"]["id"],
        }
        return self

    async def snapshot(self) -> str:
        """All that a bad request might have changed."""
        project = f"/api/projects/{self.ids['project']}"
        paths = [
            "/api/projects",
            f"{project}/milestones",
            f"{project}/tickets",
            "/api/agents/plans",
            "/api/agents/runs",
            f"/api/agents/runs/{self.ids['run']}/events",
        ]
        paths += [f"{project}/webhooks", f"{project}/webhooks/{self.ids['webhookId']}/deliveries"]
        paths.append(f"{project}/notice-rules")
        return json.dumps([(await self.harness.operator.get(path)).json() for path in paths])

    def path(self, path: str) -> str:
        """A path of the document with ids that are there."""
        noun = path.split("/")[3 if path.startswith("/api/agents") else 2].removesuffix("s")
        path = path.replace("{id}", self.ids.get(noun, NOBODY))
        return re.sub(r"\{(\w+)\}", lambda found: self.ids[found[1]], path)


@pytest.fixture
async def world(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> World:
    # Bodies of many megabytes are made on the server's own loop here, and that time isn't the database's.
    monkeypatch.setattr(auth, "LOOK_UP_SECONDS", 60.0)
    return await World(harness).build()


def body_operations() -> list[tuple[str, str, str]]:
    """Method, path and operation of every route with a body."""
    return [
        (method, path, operation["operationId"])
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        # What GitHub signs is looked at in tests/server/test_github.py: without a signature no body is read.
        if "requestBody" in operation and path != "/api/hooks/github"
    ]


BODIES = body_operations()
ROUTES = pytest.mark.parametrize(("method", "path"), [pytest.param(m, p, id=name) for m, p, name in BODIES])


def cases(method: str, path: str) -> list[Bad]:
    content = DOCUMENT["paths"][path][method]["requestBody"]["content"]["application/json"]
    schema = content["schema"]
    schemas = [resolve(each) for each in schema.get("anyOf", [schema])]
    goods = [example["value"] for example in content["examples"].values()]
    found = []
    for each in schemas:
        good = next(
            good for good in reversed(goods) if set(good) <= set(each["properties"]) >= set(each.get("required", ()))
        )
        found += list(bad_fields(each, good))
    return found


# --- every field ---------------------------------------------------------------------------------------------------


@ROUTES
async def test_every_field_refuses_what_its_schema_forbids(world: World, method: str, path: str) -> None:
    before = await world.snapshot()
    bads = cases(method, path)
    assert len(bads) > 5
    for bad in bads:
        if path == "/api/agents/plan" and bad.body.keys() & {"lanes"} == set() and bad.path == "lanes":
            continue  # a body of neither kind is told what the other kind lacks
        response = await world.harness.admin.request(
            method, world.path(path), content=json.dumps(bad.body), headers={"content-type": "application/json"}
        )
        body = assert_error(response, 400, "INVALID_REQUEST")
        paths = [issue["path"] for issue in body["issues"]]
        shown = bad.path[:290]
        assert any(found.startswith(shown) for found in paths), (bad.path[:80], str(bad.body)[:200], paths)
    assert await world.snapshot() == before


async def test_all_problems_are_told_at_once(world: World) -> None:
    body = {
        "worker_id": "",
        "lease_seconds": 0,
        "phase": 5,
        "log_line": "x" * 2001,
        "attempt": "1",
        "seq": 0,
        "events": [{"type": "heartbeat"}, {"type": "nothing", "payload": []}, {"at": "now"}, "x"],
    }
    path = f"/api/agents/runs/{world.ids['run']}/events"
    found = assert_error(await world.harness.worker.post(path, json=body), 400, "INVALID_REQUEST")
    expected = {
        "worker_id": "must not be empty",
        "lease_seconds": "must be at least 1",
        "phase": "must be a string",
        "log_line": "must be at most 2000 characters long",
        "attempt": "must be an integer",
        "seq": "must be at least 1",
        "events.1.type": ("must be one of heartbeat, log_line, phase_change, action, error or ship_complete"),
        "events.1.payload": "must be an object",
        "events.2.type": "is required",
        "events.2.at": "must be an RFC 3339 date-time with its offset, such as 2026-01-02T03:04:05Z",
        "events.3": "must be an object",
    }
    assert found["fieldErrors"] == expected
    assert sorted(issue["path"] for issue in found["issues"]) == sorted(expected)


async def test_path_and_body_are_told_at_once(world: World) -> None:
    for path, expected in (
        ("/api/projects/nonsense/tickets/5", {"id", "ticketId", "title"}),
        ("/api/projects/nonsense/milestones/5", {"id", "milestoneId"}),
    ):
        response = await world.harness.admin.patch(path, json={"title": 5})
        body = assert_error(response, 400, "INVALID_REQUEST")
        assert {issue["path"] for issue in body["issues"]} == expected


# --- every body ----------------------------------------------------------------------------------------------------

GOOD = '{"worker_id":"w1","reason":"x","name":"x"'
RAW: dict[str, bytes] = {
    "nothing but spaces": b" \n ",
    "not JSON": b"worker_id=w1",
    "cut off": GOOD.encode(),
    "two values": (GOOD + "}{}").encode(),
    "a trailing comma": (GOOD + ",}").encode(),
    "single quotes": b"{'worker_id': 'w1'}",
    "not UTF-8": (GOOD + ',"x":"').encode() + b'\xff\xfe"}',
    "UTF-16": (GOOD + "}").encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + (GOOD + "}").encode(),
    "a surrogate in UTF-8": (GOOD + ',"x":"').encode() + b'\xed\xa0\x80"}',
    "a lone surrogate": (GOOD + ',"x":"\\ud800"}').encode(),
    "NaN": (GOOD + ',"x":NaN}').encode(),
    "Infinity": (GOOD + ',"x":-Infinity}').encode(),
    "1e400": (GOOD + ',"x":1e400}').encode(),
    "1E+400 far within": (GOOD + ',"x":[{"y":[-1.5E+400]}]}').encode(),
    "too many digits": (GOOD + ',"x":' + "9" * 5000 + "}").encode(),
    "a number beyond a double": (GOOD + ',"x":' + "9" * 320 + ".5}").encode(),
    "a name twice": (GOOD + ',"name":"y"}').encode(),
    "a name twice within": (GOOD + ',"x":{"y":1,"y":2}}').encode(),
    "a raw control character": (GOOD + ',"x":"\x00"}').encode(),
    "10,000 arrays": (GOOD + ',"x":' + "[" * 10_000 + "]" * 10_000 + "}").encode(),
    "10,000 objects": (GOOD + ',"x":' + '{"x":' * 10_000 + "1" + "}" * 10_001).encode(),
    "an array": b"[]",
    "a string": b'"x"',
    "a number": b"5",
    "null": b"null",
}


@ROUTES
async def test_a_body_that_is_not_a_json_object(world: World, method: str, path: str) -> None:
    before = await world.snapshot()
    for name, raw in RAW.items():
        response = await world.harness.admin.request(
            method, world.path(path), content=raw, headers={"content-type": "application/json"}
        )
        body = assert_error(response, 400, "INVALID_REQUEST")
        assert [issue["path"] for issue in body["issues"]] == ["body"], (name, body)
    assert await world.snapshot() == before


@ROUTES
async def test_no_body(world: World, method: str, path: str) -> None:
    response = await world.harness.admin.request(method, world.path(path))
    if path.endswith(("/release", "/secret", "/go-on")):
        assert response.status_code == 200
    else:
        assert_error(response, 400, "INVALID_REQUEST")


@ROUTES
async def test_a_body_of_another_kind(world: World, method: str, path: str) -> None:
    before = await world.snapshot()
    headers = [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "br"},
    ]
    for each in headers:
        response = await world.harness.admin.request(
            method, world.path(path), content=gzip.compress(b'{"worker_id":"w1"}'), headers=each
        )
        assert_error(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    for kind in ("application/json", "APPLICATION/JSON; charset=UTF-8", "application/json;charset=utf8"):
        response = await world.harness.admin.request(
            method, world.path(path), content=b"{", headers={"content-type": kind}
        )
        assert_error(response, 400, "INVALID_REQUEST")
    assert await world.snapshot() == before


@ROUTES
async def test_a_body_of_50_megabytes(world: World, method: str, path: str) -> None:
    before = await world.snapshot()
    huge = b'{"x":"' + b"x" * 50_000_000 + b'"}'

    async def in_parts() -> Any:
        for start in range(0, len(huge), 1_000_000):
            yield huge[start : start + 1_000_000]

    headers = {"content-type": "application/json"}
    send = world.harness.admin.request
    assert_error(await send(method, world.path(path), content=huge, headers=headers), 413, "PAYLOAD_TOO_LARGE")
    response = await send(method, world.path(path), content=in_parts(), headers=headers)
    assert_error(response, 413, "PAYLOAD_TOO_LARGE")
    assert await world.snapshot() == before


# --- what is not bad -----------------------------------------------------------------------------------------------


async def test_payloads_are_stored_as_sent(world: World) -> None:
    payload = {"nul": "\0", "big": 2**200, "small": 1e-300, "deep": [[[{"": None}]]], "text": "\u2028é😀", "n": -0.5}
    at = "2026-01-02t03:04:05.123456789+05:30"
    events = [{"type": "action", "payload": payload, "at": at, "unknown": 1}]
    assert (await world.harness.report(world.ids["run"], events=events, unknown={"x": 1})).status_code == 200
    event = (await world.harness.events(world.ids["run"]))[-1]
    assert (event["payload"], event["at"]) == (payload, at)


async def test_the_longest_that_is_allowed(world: World) -> None:
    emoji = "😀"
    response = await world.harness.report(
        world.ids["run"],
        phase=emoji * 200,
        log_line=emoji * 2000,
        lease_seconds=3600,
        seq=2**63 - 1,
        events=[{"type": "heartbeat"}] * 100,
    )
    assert response.status_code == 200
    assert response.json()["run"]["log_line"] == emoji * 2000


# --- paths, methods, queries ----------------------------------------------------------------------------------------


def operations(keep: Callable[[str, dict[str, Any]], bool]) -> list[Any]:
    return [
        pytest.param(method, path, id=operation["operationId"])
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if keep(path, operation)
    ]


@pytest.mark.parametrize(("method", "path"), operations(lambda path, _: "{" in path))
async def test_an_id_that_is_no_uuid_or_not_there(harness: Harness, method: str, path: str) -> None:
    content = DOCUMENT["paths"][path][method].get("requestBody", {}).get("content", {}).get("application/json", {})
    example = next(iter(content.get("examples", {}).values()), {"value": None})["value"]
    for bad in ("5", "%00", "%FF", "..%2F", NOBODY[:-1], NOBODY + "0", "null", "%F0%9F%98%80"):
        target = path.replace("{id}", bad)
        target = re.sub(r"\{\w+\}", NOBODY, target)
        response = await harness.admin.request(method, target, json=example)
        if response.status_code == 404:  # a slash within makes it another path
            assert "%2F" in bad
            continue
        body = assert_error(response, 400, "INVALID_REQUEST")
        assert "id" in {issue["path"] for issue in body["issues"]}
    target = re.sub(r"\{\w+\}", NOBODY, path)
    assert_error(await harness.admin.request(method, target, json=example), 404, "NOT_FOUND")


@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_a_method_that_the_path_does_not_know(world: World, path: str) -> None:
    known = {method.upper() for method in DOCUMENT["paths"][path]}
    expected = known | {"OPTIONS"} | ({"HEAD"} if "GET" in known else set())
    target = world.path(path) if "{" in path else path
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - known:
        response = await world.harness.admin.request(method, target)
        assert_error(response, 405, "METHOD_NOT_ALLOWED")
        assert set(response.headers["allow"].split(", ")) == expected
    options = await world.harness.admin.options(target)
    assert (options.status_code, options.content) == (204, b"")
    assert set(options.headers["allow"].split(", ")) == expected
    if "GET" in known:
        head = await world.harness.admin.head(target)
        there = 404 if path == "/api/projects/{id}/github" else 200  # this project has no link
        assert (head.status_code, head.content) == (there, b"")
        endless = "text/event-stream" in DOCUMENT["paths"][path]["get"]["responses"]["200"].get("content", ())
        if path != "/metrics" and not endless:
            got = await world.harness.admin.get(target)
            assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/",
        "/api/projects/",
        "/api//projects",
        "/api/agents",
        "/api/agents/runs/claim/x",
        f"/api/agents/runs/{NOBODY}/nothing",
        "/API/projects",
        "/static/../app.py",
        "/static/nothing.js",
        "/docs/",
        "/%2e%2e/etc/passwd",
    ],
)
async def test_a_path_that_is_not_there(harness: Harness, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        assert_error(await harness.admin.request(method, path), 404, "NOT_FOUND")


LISTS = operations(lambda _, operation: any(each["in"] == "query" for each in operation.get("parameters", ())))


@pytest.mark.parametrize(("method", "path"), LISTS)
async def test_every_query_parameter_refuses_what_its_schema_forbids(world: World, method: str, path: str) -> None:
    parameters = [each for each in DOCUMENT["paths"][path][method]["parameters"] if each["in"] == "query"]
    wrong: dict[str, str] = {}
    for each in parameters:
        schema = each["schema"].get("items", each["schema"])
        bads = ["", "\0"]
        if "enum" in schema:
            bads += ["nonsense", schema["enum"][0].upper()]
        if schema.get("type") in ("integer", "boolean"):
            bads += ["x", "1.0", "+1", " 1", "1_0", "-1", "0x1", "9" * 30, "٣", "yes", "True"]
        if schema.get("format") == "uuid":
            bads += WRONG_FORMATS["uuid"]
        bads += [str(schema[bound] + step) for bound, step in (("minimum", -1), ("maximum", 1)) if bound in schema]
        if "maxLength" in schema:
            bads.append("x" * (schema["maxLength"] + 1))
        for bad in bads:
            response = await world.harness.operator.get(world.path(path), params={each["name"]: bad})
            body = assert_error(response, 400, "INVALID_REQUEST")
            assert body["issues"][0]["path"].split(".")[0] == each["name"], bad
        wrong[each["name"]] = bads[1]
        if each["schema"]["type"] != "array":
            response = await world.harness.operator.get(world.path(path), params={each["name"]: ["1", "1"]})
            body = assert_error(response, 400, "INVALID_REQUEST")
            assert body["issues"] == [{"path": each["name"], "message": "must be given only once"}]
    # By their head alone: a stream has no end.
    twice = await world.harness.operator.head(world.path(path), params={"unknown": ["x", "y"]})
    assert twice.status_code == 200
    response = await world.harness.operator.get(world.path(path), params={**wrong, "unknown": "x"})
    found = assert_error(response, 400, "INVALID_REQUEST")["issues"]
    assert {issue["path"].split(".")[0] for issue in found} == set(wrong)
    assert (await world.harness.operator.head(world.path(path), params={"unknown": "x"})).status_code == 200


async def test_a_body_is_not_read_before_the_token(harness: Harness) -> None:
    nobody = harness.client_with(None)
    for method, path, _ in BODIES:
        response: httpx.Response = await nobody.request(
            method, path.replace("{id}", "x"), content=b"{", headers={"content-type": "application/json"}
        )
        assert_error(response, 401, "NOT_AUTHENTICATED")
