"""Issues of a Linear team, through its GraphQL API.

Errors come as HTTP 400 or within a 200, in `errors`, with a code in their `extensions`: `RATELIMITED` is one that waits
(`heartlane.sources.limits`), `AUTHENTICATION_ERROR` a bad key. Pages go by Relay's cursors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from heartlane.sources.errors import SourceDown, SourceRefused
from heartlane.sources.http import Answer, Api, Patience
from heartlane.sources.model import Cursor, Item, SourcePage
from heartlane.sources.read import list_of, object_of, text_of
from heartlane.sources.second_look import next_cursor, restarted, since_of

API_URL: Final = "https://api.linear.app"
TOKEN_NAME: Final = "LINEAR_API_KEY"  # noqa: S105 - the variable's name
TEAM: Final = re.compile(r"[A-Za-z0-9_]{1,20}")
PAGE_SIZE: Final = 50
"""Labels count for the query's complexity with each issue, so that a page of 50 stays far below what is allowed."""
CLOSED: Final = {"completed": "completed", "canceled": "cancelled", "duplicate": "duplicate"}
"""Type of a workflow state → how its issues ended; any other type is open."""
PRIORITIES: Final = {1: "critical", 2: "high", 3: "medium", 4: "low"}
QUERY: Final = """
query Issues($filter: IssueFilter, $first: Int!, $after: String) {
  issues(filter: $filter, first: $first, after: $after, orderBy: createdAt) {
    nodes {
      id identifier title description url priority updatedAt
      state { name type }
      labels(first: 20) { nodes { name } }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""


def linear_api(url: str | None, key: str | None, patience: Patience) -> Api:
    """Linear's API. Raises SourceRefused without a key: it has nothing that is public."""
    if not key:
        raise SourceRefused(f"Linear needs a key: set {TOKEN_NAME}.", token=True)
    # A personal key goes as it is; a token of OAuth says so by its scheme.
    headers = {"authorization": key if key.startswith("lin_api_") else f"Bearer {key}"}
    return Api("Linear", url or API_URL, headers=headers, token_name=TOKEN_NAME, patience=patience)


class Linear:
    """The issues of one team.

    team        its key, as in `ENG-12`
    labels      only issues that have all of these
    milestone   only issues of the project milestone of this name
    """

    name = "linear"

    def __init__(
        self,
        api: Api,
        team: str,
        *,
        labels: Sequence[str] = (),
        milestone: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not TEAM.fullmatch(team):
            raise SourceRefused(f"{team!r} is no team's key; it looks like ENG.")
        self.subject = team.upper()
        self._api = api
        self._labels = labels
        self._milestone = milestone
        self._now = now

    def start(self) -> Cursor:
        """Everything."""
        return {}

    async def page(self, cursor: Cursor) -> SourcePage:
        """One page of issues."""
        after = text_of(cursor, "after") or None
        variables = {"filter": self._filter(cursor), "first": PAGE_SIZE, "after": after}
        try:
            answer = await self._ask(variables)
        except SourceRefused as refused:
            if after is None or refused.token:
                raise
            cursor, after = restarted(cursor), None
            answer = await self._ask({**variables, "after": None})
        issues = object_of(answer.value, "data", "issues")
        if not isinstance(issues.get("nodes"), list):
            raise SourceDown("Linear answered with something else than issues.")
        info = object_of(issues, "pageInfo")
        following = text_of(info, "endCursor") if info.get("hasNextPage") is True else ""
        moved, is_last = next_cursor(cursor, answer, following or None, self._now())
        return SourcePage([_item(node) for node in issues["nodes"] if isinstance(node, dict)], moved, is_last)

    def _filter(self, cursor: Cursor) -> Mapping[str, Any]:
        wanted: dict[str, Any] = {"team": {"key": {"eq": self.subject}}}
        if self._labels:
            wanted["and"] = [{"labels": {"some": {"name": {"eqIgnoreCase": label}}}} for label in self._labels]
        if self._milestone is not None:
            wanted["projectMilestone"] = {"name": {"eq": self._milestone}}
        since = since_of(cursor)
        if since is not None:
            wanted["updatedAt"] = {"gte": since.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        return wanted

    async def _ask(self, variables: Mapping[str, Any]) -> Answer:
        answer = await self._api.post("/graphql", {"query": QUERY, "variables": variables})
        errors = list_of(answer.value, "errors")
        if errors:
            code = text_of(errors[0], "extensions", "code") or text_of(errors[0], "extensions", "type")
            said = text_of(errors[0], "extensions", "userPresentableMessage") or text_of(errors[0], "message")
            if "AUTHENTICATION" in code.upper().replace(" ", "_"):
                raise SourceRefused(f"Linear refuses the key in {TOKEN_NAME}: {said or code}.", token=True)
            raise SourceRefused(f"Linear refuses the query: {said or code or 'it does not say why'}.")
        return answer


def _item(issue: Any) -> Item:
    kind = text_of(issue, "state", "type")
    return Item(
        ref=text_of(issue, "identifier"),
        url=text_of(issue, "url") or None,
        title=text_of(issue, "title"),
        text=text_of(issue, "description"),
        labels=[name for label in list_of(issue, "labels", "nodes") if (name := text_of(label, "name"))],
        closed=kind in CLOSED,
        resolution=CLOSED.get(kind),
        priority=PRIORITIES.get(issue.get("priority")),
        key=text_of(issue, "identifier") or text_of(issue, "id"),
    )
