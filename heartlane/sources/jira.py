"""Issues of Jira Cloud, found by JQL, through the REST API v3 (`POST /rest/api/3/search/jql`).

Pages go by `nextPageToken`; a token that Jira no longer knows begins the walk anew. Descriptions are documents (`adf`).
Dates in JQL count in the time zone of whoever asks, which nobody here knows: what changed since is asked for so early
that it is early enough in each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from heartlane.sources.adf import text_of_document
from heartlane.sources.errors import SourceDown, SourceRefused
from heartlane.sources.http import Api, Patience
from heartlane.sources.model import Cursor, Item, SourcePage
from heartlane.sources.read import list_of, object_of, text_of
from heartlane.sources.second_look import next_cursor, restarted, since_of

EMAIL_NAME: Final = "JIRA_EMAIL"
TOKEN_NAME: Final = "JIRA_API_TOKEN"  # noqa: S105 - the variable's name
URL_NAME: Final = "JIRA_URL"
PROJECT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}")
PAGE_SIZE: Final = 100
FIELDS: Final = ("summary", "description", "labels", "components", "status", "resolution", "priority", "issuetype")
RESOLUTIONS: Final = {
    "done": "completed",
    "fixed": "completed",
    "won't do": "wont_fix",
    "won't fix": "wont_fix",
    "declined": "wont_fix",
    "duplicate": "duplicate",
    "cannot reproduce": "no_longer_relevant",
    "incomplete": "no_longer_relevant",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
WESTERNMOST: Final = timedelta(hours=12)
"""How far any time zone lies behind UTC."""
_ORDER: Final = re.compile(r"\border\s+by\b.*\Z", re.IGNORECASE | re.DOTALL)


def jira_api(url: str | None, email: str | None, token: str | None, patience: Patience) -> Api:
    """A Jira site's API. With an e-mail address the token is an API token of it, without one a token of its own."""
    if not url:
        raise SourceRefused(f"Jira needs the address of your site: set {URL_NAME}, such as https://acme.atlassian.net.")
    headers, auth = {}, None
    if email and token:
        auth = (email, token)
    elif token:
        headers["authorization"] = f"Bearer {token}"
    names = f"{EMAIL_NAME} and {TOKEN_NAME}" if email else TOKEN_NAME
    return Api("Jira", url, headers=headers, token_name=names, patience=patience, auth=auth)


class Jira:
    """The issues of one project that a JQL finds.

    project     its key, as in `SHOP-12`
    jql         what else they have to be; an ORDER BY of it doesn't count
    """

    name = "jira"

    def __init__(
        self,
        api: Api,
        project: str,
        *,
        jql: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not PROJECT.fullmatch(project):
            raise SourceRefused(f"{project!r} is no project's key; it looks like SHOP.")
        self.subject = project.upper()
        self._api = api
        self._jql = _ORDER.sub("", jql or "").strip()
        self._now = now

    def start(self) -> Cursor:
        """Everything."""
        return {}

    async def page(self, cursor: Cursor) -> SourcePage:
        """One page of issues."""
        body: dict[str, Any] = {"jql": self._query(cursor), "maxResults": PAGE_SIZE, "fields": list(FIELDS)}
        after = text_of(cursor, "after")
        try:
            answer = await self._api.post("/rest/api/3/search/jql", body | ({"nextPageToken": after} if after else {}))
        except SourceRefused as refused:
            if not after or refused.token:
                raise
            cursor = restarted(cursor)
            answer = await self._api.post("/rest/api/3/search/jql", body | {"jql": self._query(cursor)})
        found = object_of(answer.value)
        if not isinstance(found.get("issues"), list):
            raise SourceDown("Jira answered with something else than issues.")
        following = "" if found.get("isLast") is True else text_of(found, "nextPageToken")
        moved, is_last = next_cursor(cursor, answer, following or None, self._now())
        issues = [row for row in found["issues"] if isinstance(row, dict)]
        return SourcePage([_item(self._api.url, issue) for issue in issues], moved, is_last)

    def _query(self, cursor: Cursor) -> str:
        parts = [f'project = "{self.subject}"']
        if self._jql:
            parts.append(f"({self._jql})")
        since = since_of(cursor)
        if since is not None:
            parts.append(f'updated >= "{since - WESTERNMOST:%Y-%m-%d %H:%M}"')
        return f"{' AND '.join(parts)} ORDER BY created ASC"


def _item(url: str, issue: Mapping[str, Any]) -> Item:
    fields = object_of(issue, "fields")
    key = text_of(issue, "key")
    closed = text_of(fields, "status", "statusCategory", "key") == "done"
    resolution = text_of(fields, "resolution", "name").lower()
    components = [name for each in list_of(fields, "components") if (name := text_of(each, "name"))]
    return Item(
        ref=key,
        url=f"{url}/browse/{quote(key, safe='')}",
        title=text_of(fields, "summary"),
        text=text_of_document(fields.get("description")),
        labels=[label for label in list_of(fields, "labels") if isinstance(label, str)] + components,
        closed=closed,
        resolution=RESOLUTIONS.get(resolution) if closed else None,
        request_type=text_of(fields, "issuetype", "name").lower() or None,
        priority=text_of(fields, "priority", "name") or None,
        key=key,
    )
