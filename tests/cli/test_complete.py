"""What the shell offers while somebody types: verbs, names, and what the server has."""

from __future__ import annotations

import pytest

from tests.cli.command import heartlane
from tests.cli.people import People


def offered(line: str, url: str = "", token: str = "") -> list[str]:
    """What bash offers for the last word of a line."""
    ended = heartlane(
        _HEARTLANE_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(line.count(" ")),
        HEARTLANE_URL=url,
        HEARTLANE_TOKEN=token,
    )
    assert ended.code == 0, ended
    return ended.out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("heartlane lane re", {"release", "resume", "retry"}),
        ("heartlane lanes --state sh", {"shipping", "shipped"}),
    ],
)
def test_names_are_offered_without_a_server(line: str, expected: set[str]) -> None:
    assert set(offered(line)) == expected


def test_a_server_that_is_not_there_is_no_error() -> None:
    assert offered("heartlane lane show ", "http://127.0.0.1:9", "hlt_x") == []


def test_lanes_are_offered_by_their_keys(fleet: People) -> None:
    fleet.lanes(fleet.project("Offered"), "offer-one", "offer-two", "other")
    assert sorted(offered("heartlane lane show offer", fleet.url, fleet.token)) == ["offer-one", "offer-two"]
    assert offered("heartlane projects show Off", fleet.url, fleet.token) == ["Offered"]
