"""`heartlane tickets github`: a project is linked, looked at, imported by the server, and let go again."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.cli.command import assert_one_line, heartlane, here, served
from tests.sources.tracker import TOKEN, FakeGitHub


def test_the_link_from_a_terminal(github: FakeGitHub, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'heartlane.db'}"
    token = heartlane("token", "create", "me", "--scope", "admin", "--database", database).out.strip()
    flags = ("--github-api-url", github.url, "--github-token", TOKEN)
    with served(database, tmp_path, *flags) as server:
        variables = {"HEARTLANE_URL": server.url, "HEARTLANE_TOKEN": token}
        host = httpx.URL(github.url).host
        with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}, trust_env=False) as client:
            client.post("/api/projects", json={"name": "Web shop", "repo_url": f"http://{host}/acme/shop.git"})

        def run(*arguments: str) -> str:
            ended = here("tickets", "github", *arguments, **variables)
            assert ended.code == 0, ended
            return ended.out + ended.err

        assert_one_line(here("tickets", "github", "show", **variables), 15)
        bad = here("tickets", "github", "link", "--role-label", "chef=x", **variables)
        assert "--role-label must be for one of" in assert_one_line(bad, 2)
        shown = run("link", "--project", "Web shop", "--label", "agent", "--role-label", "backend=api*")
        assert "acme/shop" in shown
        assert "not taken: the server has no secret for them" in shown
        github.issue("An issue", "agent", "API v2")
        found = json.loads(run("import", "--json"))["github"]["last_import"]
        assert (found["state"], found["created"]) == ("done", 1)
        assert "done" in run("show")
        assert "no longer linked with acme/shop" in run("unlink")
        assert_one_line(here("tickets", "github", "import", **variables), 15)
