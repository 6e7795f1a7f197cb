"""What the shell offers while somebody types: names that are always the same, and lanes and projects of the server."""

from __future__ import annotations

from collections.abc import Iterator

from heartlane.lanes.run import EventType, Role, State


def states(incomplete: str) -> list[str]:
    """The states of lanes."""
    return _beginning([str(name) for name in State], incomplete)


def roles(incomplete: str) -> list[str]:
    """The roles of lanes."""
    return _beginning([str(name) for name in Role], incomplete)


def event_types(incomplete: str) -> list[str]:
    """The types of events."""
    return _beginning([str(name) for name in EventType], incomplete)


def lane_keys(incomplete: str) -> list[tuple[str, str]]:
    """The newest lanes by their keys; nothing where the server doesn't answer at once."""
    return [(key, about) for key, about in _newest_lanes() if key.startswith(incomplete)]


def project_names(incomplete: str) -> list[str]:
    """The newest projects by their names; nothing where the server doesn't answer at once."""
    return _beginning([str(project["name"]) for project in _ask("/api/projects", "projects")], incomplete)


def _newest_lanes() -> Iterator[tuple[str, str]]:
    seen = set()
    for run in _ask("/api/agents/runs", "runs"):
        if run["lane_key"] not in seen:
            seen.add(run["lane_key"])
            yield run["lane_key"], f"{run['state']}: {run['title']}"


def _ask(path: str, key: str) -> list[dict[str, str]]:
    """One page of a list. Somebody waits for it at each press of a key: it takes a second at most, and never fails."""
    import httpx

    from heartlane.client.errors import NotConfigured
    from heartlane.client.settings import server_token, server_url

    try:
        url = server_url(None)
        headers = {"authorization": f"Bearer {server_token(None, url).reveal()}"}
        answer = httpx.get(url + path, headers=headers, params={"limit": "200"}, timeout=1.0)
        rows: list[dict[str, str]] = answer.json()[key]
    except (httpx.HTTPError, NotConfigured, ValueError, KeyError, TypeError):
        return []
    return rows


def _beginning(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
