"""The live board without a terminal: which lanes are shown in which order, and the lines that they become."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from heartlane.cli.board import Board, Heading, Narrowing
from heartlane.cli.board_screen import View, lines_of
from heartlane.cli.full_screen import keys_of
from heartlane.lanes.run import HELD_STATES
from heartlane.server.bodies import dump
from heartlane.wire.run_json import run_body
from tests.runs import queued

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = "http://lanes.example:8484"


def lane(key: str, state: str = "queued", why: str | None = None, **fields: Any) -> dict[str, Any]:
    """A lane as the API tells it."""
    held = state in HELD_STATES
    times = {"lease_expires_at": (NOW + timedelta(seconds=90)).isoformat() if held else None, "last_heartbeat": None}
    times |= {"created_at": "2026-01-02T03:00:00Z", "updated_at": "2026-01-02T03:04:00Z", "finished_at": None}
    body = json.loads(dump(run_body(queued(), NOW)))
    own = {"id": f"id-{key}", "lane_key": key, "state": state, "needs_attention": why}
    return {**body, **times, **own, "worker_id": "w1" if held else None, **fields}


def board_of(*runs: dict[str, Any], **narrowing: Any) -> Board:
    board = Board(Narrowing(**narrowing))
    board.all_runs(list(runs))
    return board


def shown(board: Board, view: View | None = None, columns: int = 100, rows: int = 24) -> list[str]:
    """The screen's lines as plain text."""
    lines, _ = lines_of(board, view or View(), (columns, rows), URL, NOW)
    assert len(lines) == rows
    return ["".join(span.text for span in line) for line in lines]


FLEET = (
    lane("done", "shipped"),
    lane("next-10"),
    lane("next-9"),
    lane("busy", "running"),
    lane("quiet", "running", "stalled"),
    lane("broken", "failed", "failed"),
    lane("asks", "running", "waiting_for_human"),
)


def test_what_needs_a_hand_comes_first_then_what_is_under_way() -> None:
    entries = board_of(*FLEET).entries
    assert [entry.text if isinstance(entry, Heading) else entry["lane_key"] for entry in entries] == [
        *("Needs a hand", "asks", "quiet", "broken"),
        *("Running", "busy"),
        *("Waiting", "next-9", "next-10"),
        *("Shipped", "done"),
    ]


@pytest.mark.parametrize(
    ("narrowing", "keys"),
    [
        ({"states": frozenset({"running"})}, ["asks", "quiet", "busy"]),
        ({"attention": True}, ["asks", "quiet", "broken"]),
        ({"search": "NEXT 9"}, ["next-9"]),
        ({"worker_id": "w1", "attention": True}, ["asks", "quiet"]),
        ({"role": "qa"}, []),
        ({"ended": False}, ["asks", "quiet", "broken", "busy", "next-9", "next-10"]),
    ],
)
def test_the_board_is_narrowed(narrowing: dict[str, Any], keys: list[str]) -> None:
    assert [run["lane_key"] for run in board_of(*FLEET, **narrowing).shown] == keys


def chosen_of(board: Board) -> str | None:
    run = board.run_chosen()
    return None if run is None else run["id"]


def test_the_choice_stays_with_its_lane_and_moves_up_when_that_goes() -> None:
    board = board_of(*FLEET)
    board.move(3)
    assert chosen_of(board) == "id-busy"
    board.run_changed(lane("asks", "shipped", updated_at="2026-01-02T03:04:01Z"))
    assert chosen_of(board) == "id-busy"
    board.narrow(attention=True)
    assert chosen_of(board) == "id-quiet"
    board.narrow(attention=False)
    board.move(100)
    assert chosen_of(board) == board.shown[-1]["id"]
    board.move(-100)
    assert chosen_of(board) == board.shown[0]["id"]
    board.all_runs([])
    assert board.run_chosen() is None
    board.move(1)


def test_an_older_word_about_a_lane_changes_nothing() -> None:
    told: list[tuple[Any, str]] = []
    board = Board(Narrowing(), lambda before, run: told.append((before and before["state"], run["state"])))
    board.all_runs([lane("a", "running")])
    board.run_changed(lane("a", "shipped", updated_at="2026-01-02T03:04:01.5Z"))
    board.all_runs([lane("a", "running", updated_at="2026-01-02T03:04:01Z")])
    assert board.runs["id-a"]["state"] == "shipped"
    assert told == [("running", "shipped")]


def test_a_renewed_lease_changes_that_alone() -> None:
    board = board_of(lane("a", "running"), lane("b"))
    until = (NOW + timedelta(minutes=5)).isoformat()
    board.lease_renewed("id-a", until, NOW.isoformat())
    board.lease_renewed("id-b", until, NOW.isoformat())
    board.lease_renewed("id-c", until, NOW.isoformat())
    assert board.runs["id-a"]["lease_expires_at"] == until
    assert board.runs["id-b"]["lease_expires_at"] is None


# --- the screen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [28, 40, 60, 80, 100, 120, 150, 300])
@pytest.mark.parametrize("rows", [5, 10, 24, 60])
def test_it_fits_any_terminal(columns: int, rows: int) -> None:
    wide = lane("宽" * 60, "running", "stalled", log_line="日本語 " * 50, phase="p" * 200, worker_id="w" * 200)
    lines = shown(board_of(wide, *FLEET), columns=columns, rows=rows)
    for line in lines[2:-1]:
        assert len(line) + line.count("宽") + sum(line.count(sign) for sign in "日本語") <= columns


def test_a_terminal_that_is_too_small_says_so() -> None:
    lines, _ = lines_of(board_of(*FLEET), View(), (20, 4), URL, NOW)
    assert lines[0][0].text == "too small"


def test_a_row_says_who_holds_the_lane_how_long_and_what_it_said_last() -> None:
    (row,) = [
        line for line in shown(board_of(lane("api", "running", phase="tests", log_line="41 passed"))) if "api" in line
    ]
    assert row.split() == [">", "api", "running", "tests", "w1", "1", "min", "41", "passed"]


def test_the_chosen_lane_is_on_the_screen_wherever_it_is() -> None:
    board = board_of(*[lane(f"lane-{number}") for number in range(500)])
    view = View()
    for by in (250, 3, -100, 500, -500, 1):
        board.move(by)
        lines, top = lines_of(board, view, (80, 24), URL, NOW)
        view = view._replace(top=top)
        marked = [line for line in lines if line[0].text.startswith("> ")]
        assert len(marked) == 1
        chosen = board.run_chosen()
        assert chosen is not None
        assert chosen["lane_key"] in marked[0][1].text


def test_hostile_lanes_are_harmless() -> None:
    bad = "\x1b[2J\x9b31m\u202e\n\r\x07"
    run = lane(bad, "running", "stalled", title=bad, phase=bad, worker_id=bad, log_line=bad, error=bad, role=bad)
    board = board_of(run)
    board.link(bad, good=False)
    for view in (View(), View(details=(bad,)), View(said=bad), View(asking=bad), View(typing=bad)):
        text = "".join(shown(board, view))
        assert not any(character in text for character in "\x1b\x9b\u202e\r\n\x07")


def test_an_empty_board_says_what_to_do() -> None:
    assert "heartlane plan create" in "\n".join(shown(board_of()))
    assert "Esc shows all" in "\n".join(shown(board_of(*FLEET, search="nothing")))


def test_keys_come_one_by_one_also_in_one_piece() -> None:
    assert list(keys_of("jk\x1b[A\x1bOB\x1b[5~\r/ä\x7f\x1b[200~q")) == [
        *("j", "k", "up", "down", "page up", "enter", "/", "ä", "rub out", "q")
    ]
