"""A server that speaks as trackers do, over real HTTP: what a source is tested against.

Its answers have the shapes that GitHub's REST API, GitLab's REST API v4, Linear's GraphQL API and Jira Cloud's REST API
v3 are documented to have: pages and how they lead on, rate limits and their headers, errors. Each is a `Tracker` with
issues of its own; `faults` are answers that the next requests get in place of the right ones.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "ghp_" + "A1b2" * 9
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class Reply:
    """One answer as it goes out.

    drop    close the connection instead; delay_seconds: wait before answering
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    delay_seconds: float = 0.0


HTML = Reply(200, "<!DOCTYPE html><html><h1>We'll be back soon</h1></html>", {"content-type": "text/html"})


class Tracker(ABC):
    """What all trackers have in common: requests that are kept, and faults that come first.

    before      called with each request before it is answered: changes what is there meanwhile
    page_max    items that a page has at most
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.faults: list[Reply | None] = []
        self.before: Callable[[Request], None] = lambda request: None
        self.page_max = 100
        self.tokens: set[str | None] = {TOKEN}
        self._clock = BEGIN

    def tick(self) -> datetime:
        """A moment later than all before."""
        self._clock += timedelta(seconds=1)
        return self._clock

    def fail(self, *faults: Reply | None) -> None:
        """Have the next requests answered so; None: rightly."""
        self.faults += faults

    def reply(self, request: Request) -> Reply:
        """The answer to a request."""
        self.requests.append(request)
        self.before(request)
        fault = self.faults.pop(0) if self.faults else None
        return fault or self.answer(request)

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """The right answer."""


def stamp(moment: datetime, *, milliseconds: bool = False) -> str:
    """A date-time as trackers write it."""
    return moment.isoformat(timespec="milliseconds" if milliseconds else "seconds").replace("+00:00", "Z")


class FakeGitHub(Tracker):
    """`GET /repos/{owner}/{repo}/issues` and `…/milestones`."""

    def __init__(self, repository: str = "acme/shop") -> None:
        super().__init__()
        self.repository = repository
        self.issues: list[dict[str, Any]] = []
        self.milestones: list[dict[str, Any]] = []

    def issue(self, title: str = "A title", *labels: str, body: str | None = None, **fields: Any) -> dict[str, Any]:
        """A new issue."""
        number = len(self.issues) + 1
        moment = stamp(self.tick())
        issue = {
            "url": f"{self.url}/repos/{self.repository}/issues/{number}",
            "html_url": f"https://github.com/{self.repository}/issues/{number}",
            "id": 1_000 + number,
            "number": number,
            "title": title,
            "user": {"login": "ada", "id": 1, "type": "User"},
            "labels": [{"id": 7, "name": label, "color": "f29513", "default": False} for label in labels],
            "state": "open",
            "state_reason": None,
            "milestone": None,
            "body": "Something that is long enough." if body is None else body,
            "created_at": moment,
            "updated_at": moment,
            "closed_at": None,
            **fields,
        }
        self.issues.append(issue)
        return issue

    def change(self, number: int, **fields: Any) -> None:
        """Change an issue, now."""
        self.issues[number - 1] |= {**fields, "updated_at": stamp(self.tick())}

    def close(self, number: int, reason: str = "completed") -> None:
        """Close an issue."""
        self.change(number, state="closed", state_reason=reason, closed_at=stamp(self._clock))

    def answer(self, request: Request) -> Reply:
        token = request.headers.get("authorization", "").removeprefix("Bearer ") or None
        if token not in self.tokens:
            return Reply(401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"})
        if request.path == f"/repos/{self.repository}/milestones":
            return self._paged(request, self.milestones)
        if request.path != f"/repos/{self.repository}/issues":
            return Reply(404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest"})
        query = request.query
        found = list(self.issues)
        if query.get("state", "open") != "all":
            found = [issue for issue in found if issue["state"] == query.get("state", "open")]
        for label in filter(None, query.get("labels", "").split(",")):
            found = [issue for issue in found if label in [each["name"] for each in issue["labels"]]]
        if "since" in query:
            found = [issue for issue in found if issue["updated_at"] >= query["since"]]
        if query.get("milestone", "").isdigit():
            number = int(query["milestone"])
            found = [issue for issue in found if (issue["milestone"] or {}).get("number") == number]
        key = {"updated": "updated_at"}.get(query.get("sort", ""), "created_at")
        found.sort(key=lambda issue: (issue[key], issue["number"]), reverse=query.get("direction", "desc") == "desc")
        return self._paged(request, found)

    def _paged(self, request: Request, rows: list[dict[str, Any]]) -> Reply:
        size = min(int(request.query.get("per_page", "30")), self.page_max)
        page = int(request.query.get("page", "1"))
        last = max(1, -(-len(rows) // size))
        base = f"{self.url}{request.path}?per_page={size}"
        links = [(page - 1, "prev"), (page + 1, "next"), (last, "last"), (1, "first")]
        shown = [f'<{base}&page={number}>; rel="{name}"' for number, name in links if 1 <= number <= last]
        headers = {"link": ", ".join(shown), "x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4987"}
        return Reply(200, rows[(page - 1) * size : page * size], headers)


class FakeGitLab(Tracker):
    """`GET /api/v4/projects/:id/issues`."""

    def __init__(self, project: str = "acme/web/shop") -> None:
        super().__init__()
        self.project = project
        self.issues: list[dict[str, Any]] = []

    def issue(self, title: str = "A title", *labels: str, **fields: Any) -> dict[str, Any]:
        """A new issue."""
        number = len(self.issues) + 1
        moment = stamp(self.tick(), milliseconds=True)
        issue = {
            "id": 80_000 + number,
            "iid": number,
            "project_id": 4,
            "title": title,
            "description": "Something that is long enough.",
            "state": "opened",
            "created_at": moment,
            "updated_at": moment,
            "closed_at": None,
            "labels": list(labels),
            "milestone": None,
            "issue_type": "issue",
            "web_url": f"https://gitlab.com/{self.project}/-/issues/{number}",
            **fields,
        }
        self.issues.append(issue)
        return issue

    def change(self, number: int, **fields: Any) -> None:
        """Change an issue, now."""
        self.issues[number - 1] |= {**fields, "updated_at": stamp(self.tick(), milliseconds=True)}

    def answer(self, request: Request) -> Reply:
        if request.headers.get("private-token") not in self.tokens:
            return Reply(401, {"message": "401 Unauthorized"})
        if request.path != f"/api/v4/projects/{self.project}/issues":
            return Reply(404, {"message": "404 Project Not Found"})
        query = request.query
        found = [issue for issue in self.issues if issue["updated_at"] >= query.get("updated_after", "")]
        for label in filter(None, query.get("labels", "").split(",")):
            found = [issue for issue in found if label in issue["labels"]]
        if "milestone" in query:
            found = [issue for issue in found if (issue["milestone"] or {}).get("title") == query["milestone"]]
        key = query.get("order_by", "created_at")
        found.sort(key=lambda issue: (issue[key], issue["id"]), reverse=query.get("sort", "desc") == "desc")
        size, page = min(int(query.get("per_page", "20")), self.page_max), int(query.get("page", "1"))
        following = str(page + 1) if page * size < len(found) else ""
        headers = {"x-page": str(page), "x-next-page": following, "x-per-page": str(size), "ratelimit-remaining": "599"}
        return Reply(200, found[(page - 1) * size : page * size], headers)


# --- over HTTP ----------------------------------------------------------------------------------------------------


@contextmanager
def speaking(tracker: Tracker) -> Iterator[None]:
    """The tracker answers at `tracker.url` within the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(tracker))
    server.daemon_threads = True
    tracker.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _handler(tracker: Tracker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65_536  # a whole answer at once

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(length)
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, unquote(parts.path), query, headers, json.loads(raw) if raw else None)
            reply = tracker.reply(request)
            if reply.delay_seconds:
                time.sleep(reply.delay_seconds)
            if reply.drop:
                self.close_connection = True
                return
            text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            content = text.encode()
            self.send_response_only(reply.status)
            for name, value in {"content-type": "application/json; charset=utf-8", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
