"""Headers on every answer, whatever it answers: a browser takes data for data, and frames nothing of this server."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from heartlane.server.auth import Authenticator
from heartlane.server.errors import ApiError
from heartlane.store import tokens
from heartlane.store.store import Store
from tests.harness import Harness
from tests.server.test_openapi import OPERATIONS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_answer_is_framed_nowhere_and_taken_for_nothing_else(harness: Harness) -> None:
    nobody = harness.client_with(None)
    answers = [
        await nobody.request(method, path.replace("{", "").replace("}", ""))
        for method, path, operation in OPERATIONS
        if not operation["operationId"].startswith("stream_")
    ]
    claim = "/api/agents/runs/claim"
    answers += [
        await harness.worker.post(claim, json={"worker_id": "w"}),
        await harness.worker.post(claim, content=b"{"),
        await nobody.get("/nowhere"),
        await nobody.get("/login"),
        await nobody.get("/static/docs.js"),
        await nobody.request("DELETE", "/healthz"),
        await nobody.options("/api/agents/runs"),
        await nobody.get("/login", headers={"Host": "evil.example"}),
    ]
    assert {answer.status_code for answer in answers} >= {200, 204, 400, 401, 404, 405}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'"), answer.url
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "strict-transport-security" not in answer.headers  # said over TLS alone
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        if answer.request.method != "POST" or not answer.request.url.path.endswith(("/claim", "/events")):
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_a_token_is_looked_up_by_its_hash_and_compared_in_constant_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long a refusal takes can tell nothing of a token: what is compared depends on all of it at once."""
    _, secret = await tokens.create(store, "ci", "worker")
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def recorded(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", recorded)
    await Authenticator(store).authenticate(f"Bearer {secret}".encode(), "192.0.2.1")
    # The checksum, then the hash; never the token or the beginning of it.
    assert compared == [(secret[-6:], secret[-6:]), (tokens.hash_of(secret), tokens.hash_of(secret))]
    near = tokens.new_secret()
    with pytest.raises(ApiError):
        await Authenticator(store).authenticate(f"Bearer {near}".encode(), "192.0.2.1")
    assert len(compared) == 3, "the hash of no token is compared with any"
