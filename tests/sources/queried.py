"""Trackers that are asked by a query of their own: Linear's GraphQL API and Jira Cloud's search by JQL."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from typing import Any

from tests.sources.tracker import TOKEN, Reply, Request, Tracker, stamp

EMAIL = "ada@example.com"


class FakeLinear(Tracker):
    """`POST /graphql`, the query `issues`, newest first."""

    def __init__(self, team: str = "ENG") -> None:
        super().__init__()
        self.team = team
        self.issues: list[dict[str, Any]] = []

    def issue(self, title: str = "A title", *labels: str, kind: str = "unstarted", **fields: Any) -> dict[str, Any]:
        """A new issue."""
        number = len(self.issues) + 1
        issue = {
            "id": f"id-{number}",
            "identifier": f"{self.team}-{number}",
            "title": title,
            "description": "Something that is long enough.",
            "url": f"https://linear.app/acme/issue/{self.team}-{number}/a-title",
            "priority": 0,
            "updatedAt": stamp(self.tick(), milliseconds=True),
            "state": {"name": kind, "type": kind},
            "labels": {"nodes": [{"name": label} for label in labels]},
            **fields,
        }
        self.issues.append(issue)
        return issue

    def change(self, number: int, **fields: Any) -> None:
        """Change an issue, now."""
        self.issues[number - 1] |= {**fields, "updatedAt": stamp(self.tick(), milliseconds=True)}

    def answer(self, request: Request) -> Reply:
        if request.path != "/graphql":
            return Reply(404, "Cannot POST", {"content-type": "text/html"})
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            said = {"code": "AUTHENTICATION_ERROR", "userPresentableMessage": "You need to authenticate"}
            return Reply(400, {"errors": [{"message": "Authentication required", "extensions": said}]})
        variables = request.body["variables"]
        wanted = variables["filter"]
        if wanted["team"] != {"key": {"eq": self.team}}:
            return self._page([], variables)
        asked = [each["labels"]["some"]["name"]["eqIgnoreCase"].lower() for each in wanted.get("and", [])]
        since = wanted.get("updatedAt", {}).get("gte", "")
        found = [
            issue
            for issue in self.issues
            if issue["updatedAt"] >= since
            and all(label in [each["name"].lower() for each in issue["labels"]["nodes"]] for label in asked)
        ]
        return self._page(found[::-1], variables)

    def _page(self, found: list[dict[str, Any]], variables: dict[str, Any]) -> Reply:
        after = variables["after"]
        names = [issue["id"] for issue in found]
        if after is not None and after not in [issue["id"] for issue in self.issues]:
            return Reply(400, {"errors": [{"message": "Argument Validation Error", "extensions": {"code": "INVALID"}}]})
        start = names.index(after) + 1 if after in names else 0
        page = found[start : start + min(variables["first"], self.page_max)]
        more = start + len(page) < len(found)
        info = {"hasNextPage": more, "endCursor": page[-1]["id"] if page else None}
        headers = {"x-ratelimit-requests-remaining": "1499", "x-complexity": "201", "date": http_date(self._clock)}
        return Reply(200, {"data": {"issues": {"nodes": page, "pageInfo": info}}}, headers)


class FakeJira(Tracker):
    """`POST /rest/api/3/search/jql`, as far as imports ask."""

    def __init__(self, project: str = "SHOP") -> None:
        super().__init__()
        self.project = project
        self.issues: list[dict[str, Any]] = []
        self.generation = 1

    def issue(self, title: str = "A title", *labels: str, status: str = "new", **fields: Any) -> dict[str, Any]:
        """A new issue."""
        number = len(self.issues) + 1
        issue = {
            "id": str(10_000 + number),
            "key": f"{self.project}-{number}",
            "self": f"{self.url}/rest/api/3/issue/{10_000 + number}",
            "fields": {
                "summary": title,
                "description": document("Something that is long enough."),
                "labels": list(labels),
                "components": [],
                "status": {"name": status, "statusCategory": {"key": status}},
                "resolution": None,
                "priority": {"name": "Medium"},
                "issuetype": {"name": "Task"},
                **fields,
            },
            "updated": self.tick(),
        }
        self.issues.append(issue)
        return issue

    def change(self, number: int, **fields: Any) -> None:
        """Change an issue, now."""
        self.issues[number - 1]["fields"] |= fields
        self.issues[number - 1]["updated"] = self.tick()

    def answer(self, request: Request) -> Reply:
        expected = base64.b64encode(f"{EMAIL}:{TOKEN}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            return Reply(401, "Client must be authenticated to access this resource.", {"content-type": "text/plain"})
        body = request.body
        bounded = re.match(r'project = "(\w+)"', body["jql"])
        if bounded is None or bounded[1] != self.project:
            said = "The value 'X' does not exist for the field 'project'."
            return Reply(400, {"errorMessages": [said], "warningMessages": []})
        found = list(self.issues)
        label = re.search(r"labels = (\w+)", body["jql"])
        if label:
            found = [issue for issue in found if label[1] in issue["fields"]["labels"]]
        since = re.search(r'updated >= "([^"]+)"', body["jql"])
        if since:
            # Whoever asks lives where it is twelve hours earlier than in UTC.
            moment = datetime.fromisoformat(f"{since[1]}:00-12:00")
            found = [issue for issue in found if issue["updated"] >= moment]
        start = 0
        if "nextPageToken" in body:
            token = json.loads(base64.b64decode(body["nextPageToken"]))
            if token["generation"] != self.generation:
                return Reply(400, {"errorMessages": ["The provided next page token is invalid or expired."]})
            start = token["start"]
        page = found[start : start + min(body["maxResults"], self.page_max)]
        answer: dict[str, Any] = {
            "issues": [{name: value for name, value in issue.items() if name != "updated"} for issue in page],
            "isLast": start + len(page) >= len(found),
        }
        if not answer["isLast"]:
            token = {"generation": self.generation, "start": start + len(page)}
            answer["nextPageToken"] = base64.b64encode(json.dumps(token).encode()).decode()
        return Reply(200, answer, {"date": http_date(self._clock)})


def document(*paragraphs: str) -> dict[str, Any]:
    """A document of plain paragraphs in Atlassian's format."""
    content = [{"type": "paragraph", "content": [{"type": "text", "text": text}]} for text in paragraphs]
    return {"type": "doc", "version": 1, "content": content}


def http_date(moment: datetime) -> str:
    """A date as HTTP's headers have it."""
    return f"{moment:%a, %d %b %Y %H:%M:%S} GMT"
