"""`heartlane tickets import` as people run it: a process, a server, a tracker, an environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.cli.command import Ended, assert_one_line, heartlane, here, served
from tests.sources.queried import EMAIL, FakeJira, FakeLinear
from tests.sources.tracker import HTML, TOKEN, FakeGitHub, FakeGitLab, Reply


class Installation(NamedTuple):
    """A running server, a token, and the folder that the command keeps its cursors in."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One server for all tests here."""
    folder = tmp_path_factory.mktemp("import")
    database = f"sqlite:///{folder / 'heartlane.db'}"
    token = heartlane("token", "create", "me", "--scope", "admin", "--database", database).out.strip()
    with served(database, folder) as server:
        yield Installation(server.url, token, folder)


class Shop:
    """One project, and the command run on it."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.name = name
        self._installation = installation
        self._http = httpx.Client(
            base_url=installation.url, headers={"authorization": f"Bearer {installation.token}"}, trust_env=False
        )
        self.id: str = self._http.post("/api/projects", json={"name": name}).json()["project"]["id"]

    def bring(self, *arguments: str, **variables: str) -> Ended:
        """Run `heartlane tickets import ARGUMENTS… --project NAME`."""
        environment = {
            "HEARTLANE_URL": self._installation.url,
            "HEARTLANE_TOKEN": self._installation.token,
            "HEARTLANE_STATE": str(self._installation.folder / "state"),
            "GITHUB_TOKEN": TOKEN,
            "GITLAB_TOKEN": TOKEN,
        }
        return here("tickets", "import", *arguments, "--project", self.name, **{**environment, **variables})

    def titles(self) -> list[str]:
        """The titles of its tickets."""
        listed = self._http.get(f"/api/projects/{self.id}/tickets", params={"limit": 200}).json()["tickets"]
        return sorted(ticket["title"] for ticket in listed)

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def shop(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A project of the test's own."""
    shop = Shop(installation, request.node.name)
    yield shop
    shop.close()


def state_of(installation: Installation) -> str:
    """All that the command has kept."""
    return "\n".join(path.read_text("utf-8") for path in (installation.folder / "state").rglob("*.json"))


def test_an_import_says_what_it_did(shop: Shop, github: FakeGitHub, installation: Installation) -> None:
    github.issue("Sums are wrong", "agent", "area/backend")
    github.issue("x" * 200, "agent")
    github.issue("A pull request", "agent", pull_request={})
    ended = shop.bring("github", "acme/shop", "--label", "agent", "--api-url", github.url)
    assert (ended.code, ended.out) == (0, "acme/shop: 2 read, 2 made; 1 pull requests left out.\n"), ended
    assert "#2: title cut from 200 to 140 characters" in ended.err
    assert shop.titles() == ["Sums are wrong", "x" * 139 + "…"]
    github.close(1)
    ended = shop.bring("github", "acme/shop", "--label", "agent", "--api-url", github.url, "--json")
    result = json.loads(ended.out)
    assert (result["read"], result["updated"], result["finished"]) == (1, 1, True)
    assert ended.err == "Looking at what changed since the last import. (--from-start looks at everything.)\n"
    ended = shop.bring("github", "acme/shop", "--label", "agent", "--api-url", github.url, "--from-start")
    assert ended.out == "acme/shop: 2 read, 2 as they were; 1 pull requests left out.\n"
    assert TOKEN not in state_of(installation)
    assert installation.token not in state_of(installation)


def test_a_dry_run_changes_nothing(shop: Shop, github: FakeGitHub) -> None:
    github.issue("Is known", "agent")
    shop.bring("github", "acme/shop", "--api-url", github.url)
    github.issue("Is new \x1b[31m", "web")
    github.issue("Was closed")
    github.close(3)
    command = ("github", "acme/shop", "--api-url", github.url, "--dry-run", "--role-label", "frontend=w*")
    ended = shop.bring(*command)
    assert ended.out == (
        "known  #1  other  Is known\n"
        "created  #2  frontend  Is new [31m\n"
        "acme/shop: 3 read, 1 would be made, 1 are known and would be brought up to date, 1 not wanted."
        " Nothing was changed.\n"
    )
    tickets = json.loads(shop.bring(*command, "--json").out)["tickets"]
    assert [(ticket["outcome"], ticket["roles"]) for ticket in tickets] == [
        ("known", ["other"]),
        ("created", ["frontend"]),
    ]
    assert shop.titles() == ["Is known"]


def test_it_goes_on_where_a_rate_limit_ended_it(shop: Shop, github: FakeGitHub) -> None:
    github.page_max = 2
    for number in range(6):
        github.issue(f"Issue {number}")
    github.fail(None, Reply(429, {"message": "secondary rate limit"}, {"retry-after": "3600"}))
    command = ("github", "acme/shop", "--api-url", github.url, "--no-wait")
    ended = shop.bring(*command)
    assert ended.code == 42
    assert ended.out == "acme/shop: 2 read, 2 made.\n"
    assert "in 60 min 0 s. What was read is imported; the same command goes on from there." in ended.err
    github.requests.clear()
    ended = shop.bring(*command)
    assert ended.out == "acme/shop: 8 read, 4 made, 4 as they were.\n"
    assert "Going on where the last import stopped, after 2 read." in ended.err
    assert github.requests[0].query["since"] == github.issues[1]["updated_at"]
    assert len(shop.titles()) == 6


def test_what_is_wrong_has_an_exit_code_and_one_line(shop: Shop, github: FakeGitHub, tmp_path: Path) -> None:
    command = ("github", "acme/shop", "--api-url", github.url)
    bad = "ghp_" + "Z9y8" * 9
    line = assert_one_line(shop.bring(*command, GITHUB_TOKEN=bad), 40)
    assert line == "GitHub refuses the token in GITHUB_TOKEN: it is wrong, expired or revoked."
    assert "two in one" in assert_one_line(shop.bring(*command, GITHUB_TOKEN="two\nlines"), 2)
    assert_one_line(shop.bring("github", "acme/nothing", "--api-url", github.url), 40)
    assert_one_line(shop.bring(*command, HEARTLANE_TOKEN="hlt_" + "x" * 49), 11)
    assert_one_line(shop.bring(*command, HEARTLANE_URL=""), 2)
    assert "--role-label must be for one of" in assert_one_line(shop.bring(*command, "--role-label", "chef=x"), 2)
    rules = tmp_path / "rules.json"
    rules.write_text('{"backend": 7}', "utf-8")
    assert "must give backend a label" in assert_one_line(shop.bring(*command, "--roles-file", str(rules)), 2)
    assert "--state must be open" in assert_one_line(shop.bring(*command, "--state", "new"), 2)
    assert "no milestone 'Spring'" in assert_one_line(shop.bring(*command, "--to-milestone", "Spring"), 2)


def test_a_source_that_is_down_has_its_own_code(
    shop: Shop, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartlane.sources.http.FIRST_SECONDS", 0.01)
    github.fail(*[HTML] * 6)
    ended = shop.bring("github", "acme/shop", "--api-url", github.url)
    assert ended.code == 41
    assert ended.err.count("Trying again in") == 5
    assert "the same command goes on from there" in ended.err.splitlines()[-1]


def test_gitlab_too(shop: Shop, gitlab: FakeGitLab) -> None:
    gitlab.issue("From GitLab", "backend")
    ended = shop.bring("gitlab", "acme/web/shop", "--api-url", f"{gitlab.url}/api/v4")
    assert (ended.code, ended.out) == (0, "acme/web/shop: 1 read, 1 made.\n"), ended


def test_linear_and_jira_too(shop: Shop, linear: FakeLinear, jira: FakeJira) -> None:
    linear.issue("From Linear", "backend")
    ended = shop.bring("linear", "eng", "--api-url", linear.url, LINEAR_API_KEY=TOKEN)
    assert (ended.code, ended.out) == (0, "ENG: 1 read, 1 made.\n"), ended
    jira.issue("From Jira", "agent")
    jira.issue("Not wanted")
    variables = {"JIRA_URL": jira.url, "JIRA_EMAIL": EMAIL, "JIRA_API_TOKEN": TOKEN}
    ended = shop.bring("jira", "SHOP", "--jql", "labels = agent", **variables)
    assert (ended.code, ended.out) == (0, "SHOP: 1 read, 1 made.\n"), ended
    assert shop.titles() == ["From Jira", "From Linear"]
    assert "set JIRA_URL" in assert_one_line(shop.bring("jira", "SHOP"), 40)


def test_a_file_with_problems_sends_nothing(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text("title,roles\nFine,qa\nBad,chef\n,\nAlso bad,qa,more\n", "utf-8")
    ended = shop.bring("file", str(path))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "line 3: roles must be of frontend, backend, test, design, devops, qa, other, not 'chef'",
        "line 5: has 3 cells under 2 headings",
        "heartlane: tickets.csv has 2 problems; nothing was imported.",
    ]
    assert shop.titles() == []
    path.write_text("title,roles\nAll fine,qa\n", "utf-8")
    assert shop.bring("file", str(path)).out == "tickets.csv: 1 read, 1 made.\n"
    assert shop.titles() == ["All fine"]


def test_help_names_every_source() -> None:
    ended: Any = heartlane("tickets", "import", "--help")
    assert ended.code == 0
    for source in ("github", "gitlab", "linear", "jira", "file"):
        assert source in ended.out
