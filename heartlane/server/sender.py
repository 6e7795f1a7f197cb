"""Sends one delivery to its webhook: signed, with limits on everything, and says how it went."""

from __future__ import annotations

import asyncio
import random
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import httpcore
import httpx
from standardwebhooks import Webhook

from heartlane import __version__
from heartlane.server.egress import Allowed, Guard
from heartlane.server.messages import body_for
from heartlane.server.vault import CantOpen, NoKey, Vault
from heartlane.store.deliveries import Attempt, Delivery
from heartlane.wire.secrets import Redactor

CONNECT_SECONDS: Final = 5.0
ATTEMPT_SECONDS: Final = 15.0
"""Longest an attempt may take, from the first look at the name to the end of the answer."""
ANSWER_BYTES: Final = 1_024
"""How much of an answer is kept; no more is read than what comes with it."""
FIRST_DELAY_SECONDS: Final = 5.0
DELAY_FACTOR: Final = 3.0
DELAY_MAX_SECONDS: Final = 4 * 3_600.0
JITTER: Final = 0.2
CONNECTIONS_MAX: Final = 128
KEEP_ALIVE_SECONDS: Final = 20.0
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def delay_seconds(attempt: int, spread: float) -> float:
    """How long to wait after a failed attempt (the first is 1); `spread` in [-1, 1] is the jitter.

    >>> [round(delay_seconds(attempt, 0)) for attempt in (1, 2, 3, 4, 8, 9, 20)]
    [5, 15, 45, 135, 10935, 14400, 14400]
    """
    grown = FIRST_DELAY_SECONDS * DELAY_FACTOR ** min(attempt - 1, 20)
    return min(grown, DELAY_MAX_SECONDS) * (1 + JITTER * spread)


def signatures(delivery_id: str, at: datetime, body: str, secrets: list[str]) -> str:
    """The value of `webhook-signature`: one signature for each secret that is valid now."""
    return " ".join(Webhook(secret).sign(delivery_id, at, body) for secret in secrets)


class Sender:
    """Sends deliveries. For one event loop.

    board_url           where people reach the board, for messages that link to it; None: unknown
    attempt_seconds     limit on one attempt
    """

    def __init__(
        self,
        vault: Vault,
        allowed: Allowed,
        *,
        board_url: str | None = None,
        attempt_seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        self._vault = vault
        self._board_url = board_url
        self._seconds = attempt_seconds
        self._guard = Guard(allowed)
        self._redactor = Redactor()
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def send(self, delivery: Delivery, now: datetime) -> Attempt:
        """Make one attempt; `now` is the database's time. Raises nothing but its own cancellation."""
        began = time.perf_counter()
        status: int | None = None
        answer: str | None = None
        retry_after: float | None = None
        error: str | None
        try:
            async with asyncio.timeout(self._seconds):
                status, answer, retry_after = await self._exchange(delivery, now)
            error = _verdict(status)
        except TimeoutError:
            error = f"No answer within {self._seconds:.0f} s."
        except (CantOpen, NoKey) as failure:
            error = f"Its address or secret can't be read: {failure}"
        except httpcore.TimeoutException as failure:
            error = str(failure) or "Not connected in time."
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as failure:
            error = self._redactor.text(str(failure)) or type(failure).__name__
        took = round((time.perf_counter() - began) * 1000)
        if error is None:
            return Attempt(delivery, now, status, took, None, answer)
        retry_at: datetime | None = now + timedelta(
            seconds=max(delay_seconds(delivery.attempt, random.uniform(-1, 1)), retry_after or 0)  # noqa: S311 - jitter
        )
        gone = status == 410
        if gone or (retry_at is not None and retry_at > delivery.give_up_at):
            # The last attempt comes when the time is up, not hours before.
            retry_at = delivery.give_up_at if not gone and now < delivery.give_up_at - timedelta(minutes=1) else None
        return Attempt(delivery, now, status, took, error, answer, retry_at, gone)

    async def _exchange(self, delivery: Delivery, now: datetime) -> tuple[int, str, float | None]:
        url = self._vault.open(delivery.url_sealed)
        body = body_for(delivery.format, delivery.body, self._board_url)
        headers = [
            ("content-type", "application/json"),
            ("user-agent", f"Heartlane/{__version__}"),
            ("accept-encoding", "identity"),
        ]
        if delivery.secret_sealed is not None:
            secrets = [self._vault.open(delivery.secret_sealed)]
            until = delivery.old_secret_until
            if delivery.old_secret_sealed is not None and until is not None and now < until:
                secrets.append(self._vault.open(delivery.old_secret_sealed))
            # The receiver compares with its own clock, so that the time is this machine's.
            signed_at = datetime.now(UTC)
            headers += [
                ("webhook-id", delivery.id),
                ("webhook-timestamp", str(int(signed_at.timestamp()))),
                ("webhook-signature", signatures(delivery.id, signed_at, body, secrets)),
            ]
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=httpx.create_ssl_context(),
                max_connections=CONNECTIONS_MAX,
                max_keepalive_connections=CONNECTIONS_MAX // 4,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
                network_backend=self._guard,
            )
        limits = {"connect": CONNECT_SECONDS, "read": self._seconds, "write": self._seconds, "pool": self._seconds}
        async with self._pool.stream(
            "POST", url, headers=headers, content=body.encode(), extensions={"timeout": limits}
        ) as response:
            begin = b""
            async for part in response.aiter_stream():
                begin += part[: ANSWER_BYTES - len(begin)]
                if len(begin) >= ANSWER_BYTES:
                    break
            retry_after = next((value for name, value in response.headers if name.lower() == b"retry-after"), None)
            return response.status, self._plain(begin), _seconds_of(retry_after)

    def _plain(self, begin: bytes) -> str:
        """Text without control characters, whatever the endpoint sent: it is shown on terminals and pages."""
        return self._redactor.text(_CONTROLS.sub("\ufffd", begin.decode("utf-8", "replace")))

    async def close(self) -> None:
        """Close every connection."""
        self._guard.close()
        if self._pool is not None:
            await self._pool.aclose()


def _verdict(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"Answered {status}: redirects are not followed; set the address that it leads to."
    if status == 410:
        return "Answered 410: the endpoint is gone for good."
    return f"Answered {status}."


def _seconds_of(retry_after: bytes | None) -> float | None:
    """A `Retry-After` in seconds, whichever of its two forms it has; None where there is none that can be read."""
    if retry_after is None:
        return None
    text = retry_after.decode("latin-1").strip()
    if text.isascii() and text.isdigit() and len(text) < 9:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())
