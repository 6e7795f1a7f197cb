"""Projects that are linked with GitHub: every route as a function that builds a `Call`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heartlane.client.call import Call, Id, delete, get, part, post, put
from heartlane.wire.github_answers import GithubLinkAnswer, GithubLinkObject
from heartlane.wire.names import RoleName


def read_github_link(project_id: Id) -> Call[GithubLinkObject]:
    """How a project is linked with GitHub, and how its last import stands."""
    return get(_link(project_id), GithubLinkAnswer, lambda answer: answer.github)


def put_github_link(
    project_id: Id,
    *,
    label: str | None = None,
    roles: Mapping[RoleName, Sequence[str]] | None = None,
    milestone_id: Id | None = None,
) -> Call[GithubLinkObject]:
    """Link a project with the repository at its `repo_url`; what isn't named is not wanted."""
    wanted = {role: list(labels) for role, labels in (roles or {}).items()}
    body = {"label": label, "roles": wanted, "milestone_id": milestone_id}
    return put(_link(project_id), GithubLinkAnswer, lambda answer: answer.github, body)


def delete_github_link(project_id: Id) -> Call[GithubLinkObject]:
    """End a project's link with GitHub; its tickets stay."""
    return delete(_link(project_id), GithubLinkAnswer, lambda answer: answer.github)


def import_github(project_id: Id) -> Call[GithubLinkObject]:
    """Have the server import the project's issues from GitHub; again is safe."""
    path = f"{_link(project_id)}/import"
    return post(path, GithubLinkAnswer, lambda answer: answer.github, None, repeatable=True)


def _link(project_id: Id) -> str:
    return f"/api/projects/{part(project_id)}/github"
