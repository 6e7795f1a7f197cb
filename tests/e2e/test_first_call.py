"""The published call, to the letter: only host, id and token are changed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.e2e.conftest import Replicas
from tests.e2e.database import new_token
from tests.e2e.fleet import claim, client_of, make_runs, read_events, read_run

CALL = """curl --request POST \
 --url https://example.com/api/agents/runs/2489E9AD-2EE2-8E00-8EC9-32D5F69181C0/events \
 --header 'Authorization: Bearer <token>' \
 --header 'Content-Type: application/json' \
 --data '{ "worker_id": "example", "lease_seconds": 1, "phase": "example", "log_line": "example", \
"events": [ { "type": "heartbeat", "payload": {} } ] }'"""


def published_call(url: str, run_id: str, token: str) -> list[str]:
    """The published command line for another host, id and token."""
    call = CALL.replace("https://example.com", url)
    call = call.replace("2489E9AD-2EE2-8E00-8EC9-32D5F69181C0", run_id.upper())
    return shlex.split(call.replace("<token>", token))


def run_call(arguments: list[str], folder: Path) -> tuple[int, bytes]:
    """Status and body of the answer, by curl itself where it is installed."""
    if shutil.which("curl"):
        body = folder / "answer.json"
        more = ["--silent", "--show-error", "--noproxy", "*", "--output", str(body), "--write-out", "%{http_code}"]
        ended = subprocess.run([*arguments, *more], capture_output=True, text=True, timeout=30, check=True)
        return int(ended.stdout), body.read_bytes()
    value = {name: arguments[place + 1] for place, name in enumerate(arguments[:-1]) if name in ("--url", "--data")}
    headers = [arguments[place + 1] for place, name in enumerate(arguments) if name == "--header"]
    request = urllib.request.Request(value["--url"], value["--data"].encode(), method="POST")
    for header in headers:
        request.add_header(*header.split(": ", 1))
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


async def test_the_published_call_renews_the_lease_and_returns_the_run(replicas: Replicas, tmp_path: Path) -> None:
    server, token = replicas.servers[0], await new_token(replicas.database)
    async with client_of(server.url, token) as client:
        (run_id,) = await make_runs(client, 1)
        before = await claim(client, run_id, "example", lease_seconds=60)

        status, body = run_call(published_call(server.url, run_id, token), tmp_path)

        assert status == 200, body
        answer = json.loads(body)
        run = answer["run"]
        assert answer["ok"] is True
        assert (run["id"], run["state"], run["worker_id"]) == (run_id, "running", "example")
        assert (run["phase"], run["log_line"]) == ("example", "example")
        assert run["last_heartbeat"] > before["last_heartbeat"]
        assert run["lease_expires_at"] < before["lease_expires_at"]
        events = await read_events(client, run_id)
        assert [(event["type"], event["payload"]) for event in events[1:]] == [("heartbeat", {})]


async def test_the_published_call_of_anybody_else_changes_nothing(replicas: Replicas, tmp_path: Path) -> None:
    server, token = replicas.servers[0], await new_token(replicas.database)
    async with client_of(server.url, token) as client:
        (run_id,) = await make_runs(client, 1)
        await claim(client, run_id, "another", lease_seconds=60)
        before = await read_run(client, run_id)

        status, body = run_call(published_call(server.url, run_id, token), tmp_path)
        assert (status, json.loads(body)["code"]) == (409, "CLAIM_HELD_BY_OTHER")
        assert json.loads(body)["run"]["worker_id"] == "another"
        status, body = run_call(published_call(server.url, run_id, token[:-1] + "x"), tmp_path)
        assert (status, json.loads(body)["code"]) == (401, "NOT_AUTHENTICATED")
        assert await read_run(client, run_id) == before
