"""The server as a worker meets it: its address, itself, its clock, and whether the token opens it."""

from __future__ import annotations

import contextlib
import email.utils
import re
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from heartlane.worker.doctor.findings import Finding, Patient

if TYPE_CHECKING:
    import httpx

ANSWER_SECONDS: Final = 10.0
SKEW_SECONDS_MAX: Final = 5.0


def look_at_server(patient: Patient, now: Callable[[], float]) -> Iterator[Finding]:
    import httpx  # noqa: PLC0415 - a third of a command's start

    if not patient.url:
        yield Finding(
            "server",
            "problem",
            "HEARTLANE_URL is not set",
            "Set it to the server's address: http://127.0.0.1:8484, say.",
        )
        return
    url = shown_url(patient.url)
    if url is None:
        yield Finding(
            "server", "problem", "HEARTLANE_URL is no address", "It begins with http:// or https://, and a host."
        )
        return
    try:
        client = httpx.Client(
            base_url=patient.url.strip().rstrip("/") + "/", timeout=ANSWER_SECONDS, follow_redirects=False
        )
    except (httpx.InvalidURL, OSError) as error:  # SSL_CERT_FILE that isn't there, say
        yield unreachable(url, error)
        return
    with client:
        began = now()
        try:
            answer = client.get("healthz")
        except httpx.HTTPError as error:
            yield unreachable(url, error)
            return
        ended = now()
        yield (finding := _is_heartlane(url, answer) or _is_ready(client, url, answer))
        if finding.level == "problem":
            return
        yield _clock(answer, (began + ended) / 2)
        yield _token(client, patient.token)


def shown_url(url: str) -> str | None:
    """A server's address as it may be shown, without a password in it; None for what is none.

    >>> shown_url("https://me:pw@lanes.example.com/x/"), shown_url("lanes.example.com"), shown_url("http://x:port")
    ('https://lanes.example.com/x', None, None)
    """
    try:
        parts = urlsplit(url.strip())
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def unreachable(url: str, error: Exception) -> Finding:
    """Why no answer came from the server's address."""
    said = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            if "WRONG_VERSION_NUMBER" in str(cause) or "record layer" in str(cause).lower():
                cure = "The server speaks plain HTTP there: write http:// instead of https://, or its other port."
            else:
                cure = (
                    "Give the server a certificate that this machine trusts, for the host in HEARTLANE_URL; "
                    "SSL_CERT_FILE names an authority of your own."
                )
            return Finding("server", "problem", f"no secure connection to {url}: {said}", cure)
        cause = cause.__cause__ or cause.__context__
    if "timed out" in said.lower() or "Timeout" in type(error).__name__:
        cure = "Check the host and port, and that no firewall lies in between."
        return Finding("server", "problem", f"no answer from {url} within {ANSWER_SECONDS:.0f} s", cure)
    if "refused" in said.lower():
        cure = "Start the server (heartlane serve), or correct the port in HEARTLANE_URL."
    else:
        cure = "Check the host in HEARTLANE_URL, and the network."
    return Finding("server", "problem", f"{url} can't be reached: {said}", cure)


def _is_heartlane(url: str, answer: httpx.Response) -> Finding | None:
    if answer.is_redirect:
        target = answer.headers.get("location", "").removesuffix("/healthz") or "another address"
        return Finding(
            "server", "problem", f"{url} sends its callers on to {target}", "Set HEARTLANE_URL to that address."
        )
    if answer.status_code in (401, 403, 407):
        return Finding(
            "server",
            "problem",
            f"something in front of {url} asks for a login of its own (status {answer.status_code})",
            "Let it pass requests on, or use an address that goes straight to the server.",
        )
    body = _json(answer)
    if answer.status_code == 200 and body.get("status") == "ok" and isinstance(body.get("version"), str):
        return None
    return Finding(
        "server",
        "problem",
        f"{url} is not a Heartlane server: /healthz answers {answer.status_code}, {_kind(answer)}",
        "Correct HEARTLANE_URL: the address of the server, without /api at its end.",
    )


def _is_ready(client: httpx.Client, url: str, health: httpx.Response) -> Finding:
    import httpx  # noqa: PLC0415

    is_one = f"{url} is a Heartlane {_json(health)['version']}"
    try:
        ready = client.get("readyz").status_code == 200
    except httpx.HTTPError:
        ready = False
    if ready:
        return Finding("server", "ok", f"{is_one}, and ready")
    return Finding(
        "server", "problem", f"{is_one}, but not ready: its database does not answer", "See the server's own log."
    )


def _kind(answer: httpx.Response) -> str:
    kind = answer.headers.get("content-type", "").partition(";")[0]
    return "a web page" if kind == "text/html" else kind or "nothing"


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _clock(answer: httpx.Response, here: float) -> Finding:
    with contextlib.suppress(ValueError, TypeError):
        there = (
            email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5
        )  # the header has whole seconds
        skew = here - there
        if abs(skew) <= SKEW_SECONDS_MAX:
            return Finding("clock", "ok", f"within {SKEW_SECONDS_MAX:.0f} s of the server's")
        way = "ahead of" if skew > 0 else "behind"
        return Finding(
            "clock",
            "warning",
            f"{abs(skew):,.0f} s {way} the server's: no lease depends on it, but the times of events will be off",
            "Let the system keep the time: timedatectl set-ntp true, or the like.",
        )
    return Finding("clock", "ok", "the server does not say its time")


NEW_ONE: Final = "Make one on the server with heartlane token create NAME --scope worker, and set HEARTLANE_TOKEN."


def _token(client: httpx.Client, token: str | None) -> Finding:
    import httpx  # noqa: PLC0415

    if not token:
        return Finding("token", "problem", "HEARTLANE_TOKEN is not set", NEW_ONE)
    if not token.isascii() or not token.isprintable() or " " in token:
        return Finding("token", "problem", "HEARTLANE_TOKEN holds a space, a line's end or the like", "Copy it again.")
    try:
        # Without a worker's name a claim is never granted; with a token that may claim, the answer says only that.
        answer = client.post("api/agents/runs/claim", json={}, headers={"Authorization": f"Bearer {token}"})
    except httpx.HTTPError as error:
        return Finding("token", "problem", f"no answer when it was tried: {error}", "Run this again.")
    code, said = _json(answer).get("code"), str(_json(answer).get("error") or f"status {answer.status_code}")
    if answer.status_code == 400 and code == "INVALID_REQUEST":
        return Finding("token", "ok", "it is valid, and may claim lanes")
    if answer.status_code == 401:
        return Finding("token", "problem", f"the server refuses it: {said}", NEW_ONE)
    if answer.status_code == 403:
        return Finding("token", "problem", f"it may not claim lanes: {said}", NEW_ONE)
    if answer.status_code == 429:
        return Finding("token", "warning", f"it could not be tried: {said}", "Run this again in a minute.")
    return Finding("token", "problem", f"it could not be tried: {said}", "See the server's own log.")
