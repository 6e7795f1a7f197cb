"""One request to a source's API, with patience: what passes is tried again, limits are waited for and said.

What a source answers is read only as JSON, up to a bound. A redirect is followed within the same host alone, so that
the token never goes anywhere else. No text here ever holds the token.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urljoin, urlsplit

import httpx

from heartlane import __version__
from heartlane.sources.errors import SourceDown, SourceLimited, SourceRefused
from heartlane.sources.limits import limited_seconds

TRIES: Final = 6
FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 120.0
"""Longest time for one whole answer, however slowly it comes."""
ANSWER_MAX: Final = 64 * 1024 * 1024
REDIRECTS_MAX: Final = 3
SHOWN_MAX: Final = 200


class Patience(NamedTuple):
    """How an import waits.

    say         where it says why it waits
    wait        whether it waits for rate limits
    tries       how often a request is made that gets no answer, or one that can't be read
    sleep       how it waits; now: what time it is; chance: drawn from 0 to 1
    """

    say: Callable[[str], None]
    wait: bool = True
    tries: int = TRIES
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    chance: Callable[[], float] = random.random


class Answer(NamedTuple):
    """An answer that could be read. Header names are in lower case."""

    value: Any
    headers: Mapping[str, str]


class _Raw(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: str


class Api:
    """A source's API at one address. Use it as `async with Api(…) as api:`.

    what        what people call it: `GitHub`
    url         the address that paths begin with
    headers     of every request, the token's among them
    token_name  the variable that the token came from, for what is said when it is refused
    """

    def __init__(
        self,
        what: str,
        url: str,
        *,
        headers: Mapping[str, str],
        token_name: str,
        patience: Patience,
        auth: tuple[str, str] | None = None,
    ) -> None:
        self.what = what
        self.url = url.rstrip("/")
        self._token_name = token_name
        self._patience = patience
        self._http = httpx.AsyncClient(
            headers={"user-agent": f"heartlane/{__version__}", "accept": "application/json", **headers},
            auth=auth,
            timeout=httpx.Timeout(30.0, connect=10.0),
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def get(self, path: str, query: Mapping[str, str]) -> Answer:
        """The answer to a GET. Raises SourceError."""
        return await self._ask("GET", path, dict(query), None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """The answer to a POST that only asks. Raises SourceError."""
        return await self._ask("POST", path, {}, body)

    async def _ask(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Answer:
        patience = self._patience
        tried = 0
        while True:
            try:
                raw = await self._send(method, path, query, body)
                seconds = limited_seconds(raw.status, raw.headers, raw.body, patience.now())
                if seconds is None:
                    return self._read(raw, path)
            except SourceDown as error:
                tried += 1
                if tried >= patience.tries:
                    raise
                wait = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (tried - 1)) * (0.5 + patience.chance() / 2)
                patience.say(f"{error} Trying again in {_seconds(wait)}.")
                await patience.sleep(wait)
                continue
            text = f"{self.what}'s rate limit is used up until {_clock(patience.now(), seconds)}"
            if not patience.wait:
                raise SourceLimited(f"{text}, in {_seconds(seconds)}.", seconds)
            patience.say(f"{text}: waiting {_seconds(seconds)}.")
            await patience.sleep(seconds + patience.chance())

    async def _send(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> _Raw:
        url, params = self.url + path, query or None
        for _ in range(REDIRECTS_MAX + 1):
            raw = await self._send_once(method, url, params, body)
            location = raw.headers.get("location", "")
            if raw.status not in (301, 302, 307, 308) or not location:
                return raw
            target = urljoin(url, location)
            if urlsplit(target)[:2] != urlsplit(self.url)[:2]:
                raise SourceRefused(
                    f"{self.what} at {self.url} sends us on to {urlsplit(target).netloc}; is the address right?"
                )
            url, params = target, None if urlsplit(target).query else query or None
        raise SourceRefused(f"{self.what} at {self.url} sends us round in circles.")

    async def _send_once(
        self, method: str, url: str, params: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> _Raw:
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._http.stream(method, url, params=params, json=body) as response,
            ):
                parts: list[bytes] = []
                size = 0
                async for part in response.aiter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > ANSWER_MAX:
                        raise SourceDown(f"{self.what} answered with more than {ANSWER_MAX} bytes.")
        except TimeoutError:
            raise SourceDown(f"{self.what} took longer than {ANSWER_SECONDS:.0f} s to answer.") from None
        except httpx.TimeoutException:
            raise SourceDown(f"{self.what} at {self.url} didn't answer in time.") from None
        except httpx.HTTPError as error:
            raise SourceDown(
                f"{self.what} at {self.url} can't be reached: {str(error) or type(error).__name__}."
            ) from None
        except httpx.InvalidURL as error:
            raise SourceRefused(f"{self.url} is no address: {error}.") from None
        return _Raw(response.status_code, dict(response.headers), b"".join(parts).decode("utf-8", "replace"))

    def _read(self, raw: _Raw, path: str) -> Answer:
        if raw.status == 401:
            raise SourceRefused(
                f"{self.what} refuses the token in {self._token_name}: it is wrong, expired or revoked.", token=True
            )
        if raw.status in (403, 404, 410):
            raise SourceRefused(
                f"{self.what} answers {raw.status} for {path}: {_message(raw)}. Either it isn't there, or the token in "
                f"{self._token_name} may not see it.",
                token=raw.status == 403,
                hidden=raw.status == 404,
            )
        if raw.status == 408 or raw.status >= 500:
            raise SourceDown(f"{self.what} answered {raw.status}: {_message(raw)}.")
        try:
            value = json.loads(raw.body)
        except (ValueError, RecursionError):
            raise SourceDown(f"{self.what} answered {raw.status} with what is no JSON: {_shown(raw)}.") from None
        if raw.status >= 400:
            message = _message(raw)
            raise SourceRefused(
                f"{self.what} answers {raw.status} for {path}: {message}.", token="authenticat" in message.lower()
            )
        return Answer(value, raw.headers)


def _message(raw: _Raw) -> str:
    """The source's own words for an error, or how its answer begins."""
    try:
        value = json.loads(raw.body)
    except (ValueError, RecursionError):
        return _shown(raw)
    if isinstance(value, dict):
        said = value.get("message") or value.get("error") or value.get("errorMessages") or value.get("errors")
        if isinstance(said, list):
            said = "; ".join(str(each.get("message", each) if isinstance(each, dict) else each) for each in said)
        if said:
            return " ".join(str(said).split())[:SHOWN_MAX].rstrip(".")
    return _shown(raw)


def _shown(raw: _Raw) -> str:
    kind = raw.headers.get("content-type", "no type").partition(";")[0].strip()
    begin = " ".join(raw.body[: 4 * SHOWN_MAX].split())[:60]
    return f"{kind}, {begin!r}" if begin else f"{kind}, nothing in it"


def _seconds(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def _clock(now: datetime, seconds: float) -> str:
    return f"{datetime.fromtimestamp(now.timestamp() + seconds, UTC):%H:%M:%S} UTC"
