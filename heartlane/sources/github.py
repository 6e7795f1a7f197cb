"""Issues of a GitHub repository, through the REST API (`GET /repos/{owner}/{repo}/issues`).

The list has pull requests in it, which are told by their field `pull_request` and left out. Every state is asked for,
whatever is to be imported: a ticket is closed because its issue was. `Link` says whether there is more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from heartlane.sources.errors import SourceDown, SourceRefused
from heartlane.sources.http import Api, Patience
from heartlane.sources.keyset import cursor_after, query_at
from heartlane.sources.model import Cursor, Item, SourcePage
from heartlane.sources.read import list_of, text_of

API_URL: Final = "https://api.github.com"
TOKEN_NAME: Final = "GITHUB_TOKEN"  # noqa: S105 - the variable's name
REPOSITORY: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
RESOLUTIONS: Final = {"completed": "completed", "not_planned": "wont_fix", "duplicate": "duplicate"}


def github_api(url: str | None, token: str | None, patience: Patience, token_name: str = TOKEN_NAME) -> Api:
    """GitHub's API, or an Enterprise Server's (`https://HOST/api/v3`). Without a token only what is public is seen."""
    headers = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    return Api("GitHub", url or API_URL, headers=headers, token_name=token_name, patience=patience)


class GitHub:
    """The issues of one repository.

    repository  `OWNER/REPO`
    labels      only issues that have all of these
    milestone   only issues of this milestone: its number or title, `*` for any, `none`
    """

    name = "github"

    def __init__(self, api: Api, repository: str, *, labels: Sequence[str] = (), milestone: str | None = None) -> None:
        if not REPOSITORY.fullmatch(repository):
            raise SourceRefused(f"{repository!r} is no repository; it looks like OWNER/REPO.")
        self.subject = repository
        self._api = api
        self._labels = labels
        self._milestone = milestone

    def start(self) -> Cursor:
        """From the oldest change on."""
        return {}

    async def page(self, cursor: Cursor) -> SourcePage:
        """One page of issues."""
        query = {"state": "all", "sort": "updated", "direction": "asc", **query_at(cursor, "since")}
        if self._labels:
            query["labels"] = ",".join(self._labels)
        if self._milestone is not None:
            query["milestone"] = await self._milestone_number(self._milestone)
        answer = await self._api.get(f"/repos/{self.subject}/issues", query)
        if not isinstance(answer.value, list):
            raise SourceDown("GitHub answered with something else than a list of issues.")
        issues = [row for row in answer.value if isinstance(row, dict) and "pull_request" not in row]
        has_more = 'rel="next"' in answer.headers.get("link", "")
        return SourcePage(
            [item_of(issue) for issue in issues],
            cursor_after(cursor, answer.value, has_more=has_more),
            not has_more,
            len(answer.value) - len(issues),
        )

    async def _milestone_number(self, milestone: str) -> str:
        if milestone in ("*", "none") or milestone.isdigit():
            return milestone
        page = 1
        while True:
            query = {"state": "all", "per_page": "100", "page": str(page)}
            answer = await self._api.get(f"/repos/{self.subject}/milestones", query)
            rows = answer.value if isinstance(answer.value, list) else []
            for row in rows:
                if text_of(row, "title") == milestone:
                    return str(row["number"])
            if 'rel="next"' not in answer.headers.get("link", ""):
                raise SourceRefused(f"{self.subject} has no milestone {milestone!r} at GitHub.")
            page += 1


def item_of(issue: Any) -> Item:
    """An issue, as the list and the webhooks have it."""
    closed = text_of(issue, "state") == "closed"
    kind = text_of(issue, "type", "name").lower()
    return Item(
        ref=f"#{issue.get('number')}",
        url=text_of(issue, "html_url") or None,
        title=text_of(issue, "title"),
        text=text_of(issue, "body"),
        labels=[name for label in list_of(issue, "labels") if (name := label_name(label))],
        closed=closed,
        resolution=RESOLUTIONS.get(text_of(issue, "state_reason")) if closed else None,
        request_type=kind or None,
    )


def label_name(label: Any) -> str:
    """A label's name; some answers have labels as plain texts."""
    return label if isinstance(label, str) else text_of(label, "name")
