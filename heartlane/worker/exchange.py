"""A worker's calls to its server: plain JSON in, plain JSON out, and nothing raised for whatever comes back.

The worker talks all day and decides by what an answer means (`heartlane.client.lease.meaning`), never by an exception.
It keeps to plain values because a worker has to stay small: the models of `heartlane.Client` cost as much memory as all
the rest of it. One exchange is one connection, for one thread; `another` makes one for the next.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Self

import httpx

from heartlane import __version__
from heartlane.client.lease import Meaning, meaning
from heartlane.client.settings import Secret
from heartlane.worker.errors import Kind

ANSWER_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 5.0
STREAM_SILENCE_SECONDS: Final = 40.0
"""A stream has a comment every 15 seconds; one that is silent for this long is gone."""
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


class Reply(NamedTuple):
    """What came of a call.

    status      HTTP status; None where no answer came
    body        the answer's JSON object; empty where it is none
    problem     one line that says what is wrong; "" for a 2xx of Heartlane's
    kind        the problem's exit code, by name
    retry_after seconds until a retry makes sense, where somebody said so
    sent        whether the server may have got it at all; False where no connection came about
    """

    status: int | None
    body: Mapping[str, Any]
    problem: str = ""
    kind: Kind = "unusable"
    retry_after: float | None = None
    sent: bool = True

    @property
    def ok(self) -> bool:
        """Whether the server did what was asked."""
        return not self.problem

    @property
    def code(self) -> str | None:
        """The error's code, where Heartlane sent one."""
        code = self.body.get("code")
        return code if isinstance(code, str) else None

    @property
    def doubtful(self) -> bool:
        """Whether what was asked may have been done all the same: no answer came, or none of the server's own.

        A proxy's 4xx says that it passed nothing on; its 5xx, or a page in place of an answer, doesn't.
        """
        return self.sent and not self.ok and (self.status is None or not 400 <= self.status < 500)

    @property
    def meaning(self) -> Meaning:
        """What the answer to a report means for the lane."""
        if self.ok:
            return meaning(directive=str(self.body.get("directive", "continue")))
        return meaning(status=self.status, code=self.code)


class Exchange:
    """One connection to the server. A context manager that closes it.

    url     the server's address, without a slash at its end
    verify  as httpx takes it: how the server's certificate is checked
    """

    def __init__(self, url: str, token: Secret, verify: ssl.SSLContext | bool = True) -> None:
        self.url = url
        self._network: Any = None
        self._token = token
        # One for all connections: each that httpx makes by itself costs a megabyte and some milliseconds.
        self._verify = ssl.create_default_context() if verify is True else verify
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token.reveal()}", "User-Agent": f"heartlane-worker/{__version__}"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            verify=self._verify,
            limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
        )

    def another(self) -> Exchange:
        """A further connection to the same server."""
        return Exchange(self.url, self._token, self._verify)

    def post(self, path: str, body: Mapping[str, Any] | bytes, seconds: float = ANSWER_SECONDS) -> Reply:
        """POST a JSON body; `seconds` to wait for the answer."""
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = {"Content-Type": "application/json"}
        return self._ask("POST", path, seconds, content=content, headers=headers)

    def get(self, path: str, query: Mapping[str, Any] | None = None, seconds: float = ANSWER_SECONDS) -> Reply:
        """GET."""
        return self._ask("GET", path, seconds, params=query)

    def _ask(self, method: str, path: str, seconds: float, **options: Any) -> Reply:
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        try:
            answer = self._http.request(method, path, timeout=timeout, extensions={"trace": self._trace}, **options)
        except httpx.HTTPError as error:
            return self._no_answer(error)
        except (OSError, ValueError) as error:
            return Reply(None, {}, f"{self.url} can't be asked: {error}", "server_unreachable")
        return read_reply(answer.status_code, answer.headers, answer.content, self.url)

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Told by httpx of each step of a request: keeps hold of the connection that `cut` may have to end."""
        if name.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._network = info["return_value"]

    def cut(self) -> None:
        """End the call under way now, from any thread or a signal handler: it gets no answer."""
        _shut(self._network)

    def _no_answer(self, error: httpx.HTTPError) -> Reply:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or str(cause)
            return Reply(None, {}, f"no secure connection to {self.url}: {reason}", "tls_fault")
        said = str(error) or type(error).__name__
        sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        return Reply(None, {}, f"no answer from {self.url}: {said}", "server_unreachable", sent=sent)

    @contextlib.contextmanager
    def stream(self, path: str, last_event_id: str | None = None) -> Iterator[Stream | None]:
        """A stream of server-sent events; None where the server gives none (now)."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(STREAM_SILENCE_SECONDS, connect=CONNECT_SECONDS)
        request = self._http.build_request("GET", path, headers=headers, timeout=timeout)
        try:
            answer = self._http.send(request, stream=True)
        except (httpx.HTTPError, OSError):
            yield None
            return
        try:
            kind = answer.headers.get("content-type", "")
            yield Stream(answer) if answer.status_code == 200 and kind.startswith("text/event-stream") else None
        finally:
            answer.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stream:
    """An open stream: iterate over `(id, event, data)`; `cut` ends it from another thread."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._cut = threading.Event()

    def __iter__(self) -> Iterator[tuple[str | None, str, str]]:
        event_id: str | None = None
        event, data = "message", list[str]()
        for line in self._lines():
            if not line:
                if data:
                    yield event_id, event, "\n".join(data)
                event, data = "message", []
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                event_id = value
            elif name == "event":
                event = value
            elif name == "data":
                data.append(value)

    def _lines(self) -> Iterator[str]:
        """Its lines, until it breaks or is cut: both are an end like any other."""
        with contextlib.suppress(httpx.HTTPError, OSError):
            for line in self._answer.iter_lines():
                if self._cut.is_set():
                    return
                yield line

    def cut(self) -> None:
        """End the iteration now, from any thread."""
        self._cut.set()
        _shut(self._answer.extensions.get("network_stream"))


def _shut(network: Any) -> None:
    """Wake whoever reads from a connection: there is nothing more to come."""
    found = network.get_extra_info("socket") if network is not None else None
    if found is not None:
        with contextlib.suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)


def read_reply(status: int, headers: Mapping[str, str], content: bytes, url: str) -> Reply:
    """What an answer says. One that is not Heartlane's (a proxy's page, half a body) says nothing about the lane."""
    retry_after = _seconds(headers.get("retry-after"))
    body: Any = None
    if len(content) <= ANSWER_BYTES_MAX:
        with contextlib.suppress(ValueError, RecursionError):
            body = json.loads(content)
    if not isinstance(body, dict):
        kind = headers.get("content-type", "no type").partition(";")[0]
        return Reply(
            status, {}, f"{url} answered {status}, but not as Heartlane ({kind})", "not_heartlane", retry_after
        )
    if 200 <= status < 300:
        return Reply(status, body)
    said = body.get("error")
    if not isinstance(said, str) or not isinstance(body.get("code"), str):
        return Reply(status, {}, f"{url} answered {status}, but not as Heartlane", "not_heartlane", retry_after)
    after = _seconds(body.get("retryAfter"))
    kind_of: Kind = "token_refused" if status in (401, 403) else "unusable"
    return Reply(status, body, said, kind_of, retry_after if after is None else after)


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
