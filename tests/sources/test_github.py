"""Issues of GitHub become tickets: read page by page, made once, followed, whatever happens on the way."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.sources.errors import SourceDown, SourceLimited, SourceRefused
from heartlane.sources.github import GitHub, github_api
from heartlane.sources.importing import Wanted
from heartlane.sources.roles import read_rules
from tests.sources.desk import Desk, Stop
from tests.sources.tracker import HTML, TOKEN, FakeGitHub, Reply


def source(
    github: FakeGitHub, desk: Desk, *, token: str | None = TOKEN, patience: Any = None, **options: Any
) -> GitHub:
    """The repository, as the command line reads it."""
    api = desk.opened(github_api(github.url, token, patience or desk.patience()))
    return GitHub(api, options.pop("repository", github.repository), **options)


async def test_issues_become_tickets(github: FakeGitHub, desk: Desk) -> None:
    github.issue("Sums are wrong", "bug", "area/backend", "priority: high", body="The sum of two lines is off by one.")
    github.issue("A pull request", pull_request={"url": "…"})
    github.issue("Plain wish")
    progress = await desk.bring(source(github, desk))
    assert (progress.read, progress.left_out, progress.outcomes["created"]) == (2, 1, 2)
    tickets = await desk.tickets()
    assert set(tickets) == {"Sums are wrong", "Plain wish"}
    ticket = tickets["Sums are wrong"]
    assert ticket["external_url"] == "https://github.com/acme/shop/issues/1"
    assert ticket["description"] == "The sum of two lines is off by one."
    assert ticket["roles"] == {"backend": "pending", "merged": "pending"}
    assert (ticket["request_type"], ticket["priority"], ticket["stage"]) == ("bug", "high", "backlog")
    assert tickets["Plain wish"]["roles"] == {"other": "pending", "merged": "pending"}
    assert github.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_rules_and_filters(github: FakeGitHub, desk: Desk) -> None:
    github.milestones.append({"number": 7, "title": "Spring"})
    spring = {"number": 7, "title": "Spring"}
    github.issue("Taken of both", "agent", "Needs-QA", "api v2", milestone=spring)
    github.issue("Without the label", "api v2", milestone=spring)
    github.issue("Of no milestone", "agent")
    rules = read_rules({"qa": "needs-*", "backend": ["api*", "server"]})
    await desk.bring(source(github, desk, labels=["agent"], milestone="Spring"), Wanted(rules))
    tickets = await desk.tickets()
    assert set(tickets) == {"Taken of both"}
    assert set(tickets["Taken of both"]["roles"]) == {"backend", "qa", "merged"}
    with pytest.raises(SourceRefused, match="no milestone 'Autumn'"):
        await desk.bring(source(github, desk, milestone="Autumn"))


async def test_closed_issues_make_no_tickets_but_close_those_that_are_there(github: FakeGitHub, desk: Desk) -> None:
    github.issue("Stays open")
    github.issue("Will be done")
    github.issue("Will be dropped")
    github.issue("Was closed before")
    github.close(4)
    await desk.bring(source(github, desk))
    assert set(await desk.tickets()) == {"Stays open", "Will be done", "Will be dropped"}
    github.close(2)
    github.close(3, "not_planned")
    github.change(1, title="Stays open, renamed", body="Another text for it.")
    progress = await desk.bring(source(github, desk))
    assert progress.outcomes == {"created": 0, "updated": 3, "unchanged": 0, "skipped": 1}
    tickets = await desk.tickets()
    assert tickets["Stays open, renamed"]["description"] == "Another text for it."
    states = {title: (ticket["status"], ticket["resolution_type"]) for title, ticket in tickets.items()}
    assert states == {
        "Stays open, renamed": ("open", None),
        "Will be done": ("closed", "completed"),
        "Will be dropped": ("closed", "wont_fix"),
    }
    await desk.bring(source(github, desk), Wanted(state="all"))
    assert (await desk.tickets())["Was closed before"]["status"] == "closed"


async def test_twice_is_once_and_the_second_looks_only_at_what_changed(github: FakeGitHub, desk: Desk) -> None:
    github.page_max = 4
    for number in range(10):
        github.issue(f"Issue {number}")
    first = await desk.bring(source(github, desk))
    before = await desk.tickets()
    again = await desk.bring(source(github, desk))
    assert (again.outcomes["created"], again.outcomes["updated"]) == (0, 0)
    assert await desk.tickets() == before
    asked = len(github.requests)
    github.issue("A new one")
    later = await desk.bring(source(github, desk), cursor=first.cursor)
    assert (later.read, later.outcomes["created"], len(github.requests)) == (2, 1, asked + 1)


async def test_killed_after_any_page_and_started_again_is_once(github: FakeGitHub, desk: Desk) -> None:
    github.page_max = 3
    for number in range(8):
        github.issue(f"Issue {number}", "bug")
    for killed_after in range(1, 5):
        with pytest.raises(Stop):
            await desk.bring(source(github, desk), stop_after=killed_after)
    cursor: dict[str, Any] = {}
    for _ in range(5):  # and going on from each page's cursor, as after a crash behind it
        page = await source(github, desk).page(cursor)
        cursor = dict(page.cursor)
        progress = await desk.bring(source(github, desk), cursor=cursor)
        assert progress.outcomes["created"] == 0
    assert set(await desk.tickets()) == {f"Issue {number}" for number in range(8)}


async def test_what_changes_while_it_pages_is_not_lost(github: FakeGitHub, desk: Desk) -> None:
    github.page_max = 3
    for number in range(1, 10):
        github.issue(f"Issue {number}", "agent")

    def meanwhile(request: Any) -> None:
        match len(github.requests):
            case 2:  # leaves the list from before where we are: everything moves one place forward
                github.change(1, labels=[])
                github.issue("Issue 10", "agent")
            case 3:
                github.close(2)
                github.change(3, title="Issue 3 renamed")

    github.before = meanwhile
    await desk.bring(source(github, desk, labels=["agent"]))
    expected = {f"Issue {number}" for number in range(1, 11)} - {"Issue 3"} | {"Issue 3 renamed"}
    tickets = await desk.tickets()
    assert set(tickets) == expected
    assert tickets["Issue 2"]["status"] == "closed"


async def test_a_bulk_change_gives_whole_pages_one_time(github: FakeGitHub, desk: Desk) -> None:
    github.page_max = 3
    for number in range(8):
        github.issue(f"Issue {number}", updated_at="2026-02-01T00:00:00Z")
    github.issue("A later one", updated_at="2026-02-01T00:00:01Z")
    await desk.bring(source(github, desk))
    assert len(await desk.tickets()) == 9


# --- when it does not answer --------------------------------------------------------------------------------------


async def test_what_passes_is_tried_again(github: FakeGitHub, desk: Desk) -> None:
    github.page_max = 2
    for number in range(6):
        github.issue(f"Issue {number}")
    github.fail(None, Reply(502, {"message": "Server Error"}), HTML, Reply(drop=True), None, HTML)
    await desk.bring(source(github, desk))
    assert len(await desk.tickets()) == 6
    assert len(desk.said) == len(desk.waited) == 4
    assert "502: Server Error" in desk.said[0]
    assert "no JSON: text/html" in desk.said[1]


async def test_a_source_that_stays_down_keeps_what_was_read(github: FakeGitHub, desk: Desk) -> None:
    github.page_max = 2
    for number in range(4):
        github.issue(f"Issue {number}")
    github.fail(None, *[HTML] * 3)
    with pytest.raises(SourceDown, match="GitHub answered 200 with what is no JSON"):
        await desk.bring(source(github, desk, patience=desk.patience(tries=3)))
    assert set(await desk.tickets()) == {"Issue 0", "Issue 1"}
    await desk.bring(source(github, desk))
    assert len(await desk.tickets()) == 4


LIMITS = [
    pytest.param(
        Reply(
            403,
            {"message": "API rate limit exceeded"},
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225690"},
        ),
        90.0,
        id="primary",
    ),
    pytest.param(
        Reply(403, {"message": "You have exceeded a secondary rate limit"}, {"retry-after": "30"}), 30.0, id="secondary"
    ),
    pytest.param(Reply(403, {"message": "You have exceeded a secondary rate limit."}), 60.0, id="secondary-bare"),
    pytest.param(Reply(429, {"message": "Too many requests"}, {"retry-after": "7"}), 7.0, id="429"),
]


@pytest.mark.parametrize(("reply", "seconds"), LIMITS)
async def test_rate_limits_are_waited_for(github: FakeGitHub, desk: Desk, reply: Reply, seconds: float) -> None:
    github.issue("An issue")
    github.fail(reply)
    await desk.bring(source(github, desk))
    assert desk.waited == [seconds]
    assert "rate limit is used up until 00:0" in desk.said[0]
    assert len(await desk.tickets()) == 1


async def test_a_rate_limit_that_nobody_waits_for_ends_it(github: FakeGitHub, desk: Desk) -> None:
    github.fail(Reply(429, {}, {"retry-after": "7"}))
    with pytest.raises(SourceLimited, match="until 00:00:07 UTC, in 7 s") as limited:
        await desk.bring(source(github, desk, patience=desk.patience(wait=False)))
    assert limited.value.seconds == 7
    assert desk.waited == []


async def test_a_bad_token_and_a_missing_repository_are_said_once(github: FakeGitHub, desk: Desk) -> None:
    with pytest.raises(SourceRefused, match="refuses the token in GITHUB_TOKEN") as refused:
        await desk.bring(source(github, desk, token="ghp_" + "x" * 36))
    assert refused.value.token
    assert "xxxx" not in str(refused.value)
    with pytest.raises(SourceRefused, match="404 for /repos/acme/nothing/issues: Not Found"):
        await desk.bring(source(github, desk, repository="acme/nothing"))
    with pytest.raises(SourceRefused, match="looks like OWNER/REPO"):
        source(github, desk, repository="acme/shop/../x")
    assert len(github.requests) == 2


async def test_a_redirect_is_followed_on_the_same_host_alone(github: FakeGitHub, desk: Desk) -> None:
    github.issue("An issue")
    here = f"{github.url}/repos/acme/shop/issues"
    github.fail(Reply(301, {"message": "Moved Permanently"}, {"location": here}))
    await desk.bring(source(github, desk, repository="acme/old-name"))
    assert len(await desk.tickets()) == 1
    github.fail(Reply(302, {}, {"location": "http://127.0.0.1:9/steal"}))
    with pytest.raises(SourceRefused, match=r"sends us on to 127\.0\.0\.1:9"):
        await desk.bring(source(github, desk))
