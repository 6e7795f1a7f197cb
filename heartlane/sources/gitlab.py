"""Issues of a GitLab project, through the REST API v4 (`GET /projects/:id/issues`). `X-Next-Page` says whether there is
more; instances that leave it out say so by `Link`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from heartlane.sources.errors import SourceDown, SourceRefused
from heartlane.sources.github import label_name
from heartlane.sources.http import Api, Patience
from heartlane.sources.keyset import cursor_after, query_at
from heartlane.sources.model import Cursor, Item, SourcePage
from heartlane.sources.read import list_of, text_of

API_URL: Final = "https://gitlab.com/api/v4"
TOKEN_NAME: Final = "GITLAB_TOKEN"  # noqa: S105 - the variable's name
PROJECT: Final = re.compile(r"[\w.-]+(?:/[\w.-]+)+|[0-9]+")


def gitlab_api(url: str | None, token: str | None, patience: Patience) -> Api:
    """GitLab's API, or an instance's own (`https://HOST/api/v4`). Without a token only public ones are seen."""
    headers = {"private-token": token} if token else {}
    return Api("GitLab", url or API_URL, headers=headers, token_name=TOKEN_NAME, patience=patience)


class GitLab:
    """The issues of one project.

    project     `GROUP/PROJECT`, with subgroups where there are, or its number
    labels      only issues that have all of these
    milestone   only issues of the milestone of this title; `Any`, `None`
    """

    name = "gitlab"

    def __init__(self, api: Api, project: str, *, labels: Sequence[str] = (), milestone: str | None = None) -> None:
        if not PROJECT.fullmatch(project):
            raise SourceRefused(f"{project!r} is no project; it looks like GROUP/PROJECT.")
        self.subject = project
        self._api = api
        self._labels = labels
        self._milestone = milestone

    def start(self) -> Cursor:
        """From the oldest change on."""
        return {}

    async def page(self, cursor: Cursor) -> SourcePage:
        """One page of issues."""
        query = {"scope": "all", "order_by": "updated_at", "sort": "asc", **query_at(cursor, "updated_after")}
        if self._labels:
            query["labels"] = ",".join(self._labels)
        if self._milestone is not None:
            query["milestone"] = self._milestone
        answer = await self._api.get(f"/projects/{quote(self.subject, safe='')}/issues", query)
        if not isinstance(answer.value, list):
            raise SourceDown("GitLab answered with something else than a list of issues.")
        has_more = bool(answer.headers.get("x-next-page", "").strip()) or 'rel="next"' in answer.headers.get("link", "")
        rows = [row for row in answer.value if isinstance(row, dict)]
        return SourcePage([_item(row) for row in rows], cursor_after(cursor, rows, has_more=has_more), not has_more)


def _item(issue: Any) -> Item:
    kind = text_of(issue, "issue_type").lower()
    return Item(
        ref=f"#{issue.get('iid')}",
        url=text_of(issue, "web_url") or None,
        title=text_of(issue, "title"),
        text=text_of(issue, "description"),
        labels=[name for label in list_of(issue, "labels") if (name := label_name(label))],
        closed=text_of(issue, "state") == "closed",
        request_type=kind if kind and kind != "issue" else None,
    )
