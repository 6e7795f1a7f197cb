"""Issues of Linear and Jira become tickets: walked by cursors of their own, and looked at once more."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.sources.adf import text_of_document
from heartlane.sources.errors import SourceRefused
from heartlane.sources.importing import Wanted
from heartlane.sources.jira import Jira, jira_api
from heartlane.sources.linear import Linear, linear_api
from tests.sources.desk import Desk, Stop
from tests.sources.queried import EMAIL, FakeJira, FakeLinear, document
from tests.sources.tracker import TOKEN, Reply


def linear_source(linear: FakeLinear, desk: Desk, *, key: str = TOKEN, **options: Any) -> Linear:
    """The team, as the command line reads it."""
    return Linear(desk.opened(linear_api(linear.url, key, desk.patience())), options.pop("team", "ENG"), **options)


def jira_source(jira: FakeJira, desk: Desk, *, token: str = TOKEN, **options: Any) -> Jira:
    """The project, as the command line reads it."""
    api = desk.opened(jira_api(jira.url, EMAIL, token, desk.patience()))
    return Jira(api, options.pop("project", "SHOP"), **options)


async def test_linear_issues_become_tickets(linear: FakeLinear, desk: Desk) -> None:
    linear.issue("Sums are wrong", "Agent", "Backend", priority=1)
    linear.issue("Was done", "agent", kind="completed")
    linear.issue("Another's", "frontend")
    await desk.bring(linear_source(linear, desk, labels=["agent"]), Wanted(state="all"))
    tickets = await desk.tickets()
    assert set(tickets) == {"Sums are wrong", "Was done"}
    sums = tickets["Sums are wrong"]
    assert (sums["priority"], sums["external_url"]) == ("critical", "https://linear.app/acme/issue/ENG-1/a-title")
    assert sums["roles"] == {"backend": "pending", "merged": "pending"}
    assert tickets["Was done"]["status"] == "closed"
    assert linear.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_jira_issues_become_tickets(jira: FakeJira, desk: Desk) -> None:
    jira.issue("Sums are wrong", "agent", components=[{"name": "Backend"}], issuetype={"name": "Bug"})
    jira.issue("Dropped", "agent", status="done", resolution={"name": "Won't Do"}, description=None)
    jira.issue("Another's")
    await desk.bring(jira_source(jira, desk, jql="labels = agent ORDER BY rank"), Wanted(state="all"))
    tickets = await desk.tickets()
    assert set(tickets) == {"Sums are wrong", "Dropped"}
    sums = tickets["Sums are wrong"]
    assert (sums["request_type"], sums["external_url"]) == ("bug", f"{jira.url}/browse/SHOP-1")
    assert sums["roles"] == {"backend": "pending", "merged": "pending"}
    dropped = tickets["Dropped"]
    assert (dropped["status"], dropped["resolution_type"]) == ("closed", "wont_fix")
    assert jira.requests[0].body["jql"] == 'project = "SHOP" AND (labels = agent) ORDER BY created ASC'


@pytest.mark.parametrize("kind", ["linear", "jira"])
async def test_killed_after_any_page_and_started_again_is_once(
    kind: str, linear: FakeLinear, jira: FakeJira, desk: Desk
) -> None:
    tracker: Any = linear if kind == "linear" else jira

    def source() -> Any:
        return linear_source(linear, desk) if kind == "linear" else jira_source(jira, desk)

    tracker.page_max = 3
    for number in range(8):
        tracker.issue(f"Issue {number}")
    for killed_after in range(1, 4):
        with pytest.raises(Stop):
            await desk.bring(source(), stop_after=killed_after)
    cursor: dict[str, Any] = {}
    for _ in range(5):
        cursor = dict((await source().page(cursor)).cursor)
        assert (await desk.bring(source(), cursor=cursor)).outcomes["created"] == 0
    progress = await desk.bring(source(), cursor=cursor)
    assert set(await desk.tickets()) == {f"Issue {number}" for number in range(8)}
    tracker.issue("A new one")
    later = await desk.bring(source(), cursor=progress.cursor)
    assert later.outcomes["created"] == 1


@pytest.mark.parametrize("kind", ["linear", "jira"])
async def test_what_changes_while_it_pages_is_met_at_a_second_look(
    kind: str, linear: FakeLinear, jira: FakeJira, desk: Desk
) -> None:
    tracker: Any = linear if kind == "linear" else jira
    tracker.page_max = 3
    for number in range(1, 9):
        tracker.issue(f"Issue {number}")

    def meanwhile(request: Any) -> None:
        if len(tracker.requests) == 3:  # both stand before the place where the walk is
            tracker.issue("Made meanwhile")
            tracker.change(1 if kind == "jira" else 8, **{"summary" if kind == "jira" else "title": "Renamed"})

    tracker.before = meanwhile
    await desk.bring(linear_source(linear, desk) if kind == "linear" else jira_source(jira, desk))
    titles = set(await desk.tickets())
    assert {"Made meanwhile", "Renamed"} <= titles
    assert len(titles) == 9


async def test_a_cursor_that_is_no_longer_known_begins_anew(linear: FakeLinear, jira: FakeJira, desk: Desk) -> None:
    jira.page_max = linear.page_max = 2
    for number in range(5):
        jira.issue(f"Jira {number}")
        linear.issue(f"Linear {number}")
    cursor = (await jira_source(jira, desk).page({})).cursor
    jira.generation += 1
    await desk.bring(jira_source(jira, desk), cursor=cursor)
    await desk.bring(linear_source(linear, desk), cursor={"after": "gone", "began": "2026-01-01T00:00:00Z"})
    assert len(await desk.tickets()) == 10


LIMITS = [
    pytest.param(
        Reply(
            400,
            {"errors": [{"message": "Rate limit exceeded", "extensions": {"code": "RATELIMITED"}}]},
            {
                "x-ratelimit-requests-remaining": "12",
                "x-ratelimit-requests-reset": "1767229200000",
                "x-ratelimit-complexity-remaining": "0",
                "x-ratelimit-complexity-reset": "1767225720000",
            },
        ),
        120.0,
        id="complexity",
    ),
    pytest.param(Reply(429, "Too many", {"retry-after": "15"}), 15.0, id="429"),
    pytest.param(Reply(429, "", {"x-ratelimit-reset": "2026-01-01T00:01Z"}), 60.0, id="date-time"),
]


@pytest.mark.parametrize(("reply", "seconds"), LIMITS)
async def test_rate_limits_are_waited_for(linear: FakeLinear, desk: Desk, reply: Reply, seconds: float) -> None:
    linear.issue("An issue")
    linear.fail(reply)
    await desk.bring(linear_source(linear, desk))
    assert desk.waited == [seconds]
    assert len(await desk.tickets()) == 1


async def test_what_they_refuse_is_said_in_their_words(linear: FakeLinear, jira: FakeJira, desk: Desk) -> None:
    with pytest.raises(SourceRefused, match="Authentication required") as refused:
        await desk.bring(linear_source(linear, desk, key="lin_api_" + "x" * 40))
    assert refused.value.token
    linear.fail(Reply(200, {"errors": [{"message": "Query too complex", "extensions": {"code": "INPUT_ERROR"}}]}))
    with pytest.raises(SourceRefused, match="Linear refuses the query: Query too complex"):
        await desk.bring(linear_source(linear, desk))
    with pytest.raises(SourceRefused, match="refuses the token in JIRA_EMAIL and JIRA_API_TOKEN"):
        await desk.bring(jira_source(jira, desk, token="x" * 24))
    with pytest.raises(SourceRefused, match="does not exist for the field 'project'"):
        await desk.bring(jira_source(jira, desk, project="OTHER"))
    with pytest.raises(SourceRefused, match="set LINEAR_API_KEY"):
        linear_api(None, None, desk.patience())
    with pytest.raises(SourceRefused, match="set JIRA_URL"):
        jira_api(None, EMAIL, TOKEN, desk.patience())
    for bad in ('SHOP" OR project = "X', "SHOP-1", ""):
        with pytest.raises(SourceRefused, match="looks like SHOP"):
            jira_source(jira, desk, project=bad)


def test_a_document_as_text() -> None:
    def text(words: str, *marks: Any) -> dict[str, Any]:
        return {
            "type": "text",
            "text": words,
            "marks": [{"type": each} if isinstance(each, str) else each for each in marks],
        }

    def paragraph(*pieces: Any) -> dict[str, Any]:
        return {"type": "paragraph", "content": list(pieces)}

    link = {"type": "link", "attrs": {"href": "https://example.com"}}
    item = {
        "type": "listItem",
        "content": [
            paragraph(text("one")),
            {"type": "bulletList", "content": [{"type": "listItem", "content": [paragraph(text("within"))]}]},
        ],
    }
    tasks = [
        {"type": "taskItem", "attrs": {"state": state}, "content": [text(state.lower())]} for state in ("DONE", "OPEN")
    ]
    cells = [{"type": "tableCell", "content": [paragraph(text(word))]} for word in ("a", "b")]
    found = text_of_document(
        {
            "type": "doc",
            "content": [
                {"type": "heading", "attrs": {"level": 2}, "content": [text("Why")]},
                paragraph(text("Sums are "), text("wrong", "strong"), {"type": "hardBreak"}, text("see", link)),
                {"type": "orderedList", "content": [item]},
                {"type": "taskList", "content": tasks},
                {"type": "codeBlock", "attrs": {"language": "python"}, "content": [text("1 + 1")]},
                {"type": "blockquote", "content": [paragraph(text("said"))]},
                {"type": "table", "content": [{"type": "tableRow", "content": cells}]},
                {"type": "panel", "content": [paragraph({"type": "mention", "attrs": {"text": "@ada"}})]},
                {"type": "somethingNew", "content": [paragraph(text("still read"))]},
                {"type": "rule"},
                7,
            ],
        }
    )
    assert found.split("\n\n") == [
        "## Why",
        "Sums are **wrong**\n[see](https://example.com)",
        "1. one",
        "   - within",
        "- [x] done\n- [ ] open",
        "```python\n1 + 1\n```",
        "> said",
        "| a | b |",
        "@ada",
        "still read",
        "---",
    ]
    deep: Any = paragraph(text("deep"))
    for _ in range(500):
        deep = {"type": "panel", "content": [deep]}
    assert text_of_document({"type": "doc", "content": [deep]}) == ""
    assert text_of_document(document("One.", "Two.")) == "One.\n\nTwo."
    assert text_of_document(None) == ""
