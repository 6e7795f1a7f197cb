"""The verbs for people, against a real server: what they print, in which shape, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from heartlane.wire import answers
from tests.cli.command import Ended, here
from tests.cli.people import People


def error_of(ended: Ended, code: int) -> dict[str, Any]:
    """The error of a verb that was asked for JSON: on stderr, with the code that it ended with."""
    assert (ended.code, ended.out) == (code, ""), ended
    told: dict[str, Any] = json.loads(ended.err)
    assert told["exit_code"] == code
    return told


def at_100(fleet: People, *arguments: str) -> list[str]:
    """The lines of a table that is 100 characters wide."""
    ended = fleet.run(*arguments, COLUMNS="100")
    assert ended.code == 0, ended
    return ended.out.splitlines()


# --- reading ------------------------------------------------------------------------------------------------------


def test_each_list_as_json_is_the_apis_own(fleet: People) -> None:
    project_id = fleet.project("Shapes")
    runs = fleet.lanes(project_id, "shape")
    fleet.claim(runs["shape"], "shaper")
    fleet.report(runs["shape"], ("log_line", {"line": "one"}), worker_id="shaper", phase="tests")
    fleet.post(f"/api/projects/{project_id}/milestones", name="Spring")
    shapes: list[tuple[type[BaseModel], list[str]]] = [
        (answers.RunList, ["lanes", "--project", "Shapes"]),
        (answers.RunAnswer, ["lane", "show", "shape"]),
        (answers.EventList, ["lane", "events", "shape"]),
        (answers.WorkerList, ["workers", "-p", "Shapes"]),
        (answers.PlanList, ["plan", "list", "-p", "Shapes"]),
        (answers.PlanWithRuns, ["plan", "show", "Plan of shape"]),
        (answers.ProjectList, ["projects", "list"]),
        (answers.ProjectAnswer, ["projects", "show", "Shapes"]),
        (answers.MilestoneList, ["milestones", "list", "-p", "Shapes"]),
        (answers.MilestoneAnswer, ["milestones", "show", "Spring", "-p", "Shapes"]),
        (answers.TicketList, ["tickets", "list", "-p", "Shapes"]),
    ]
    for model, arguments in shapes:
        told = fleet.json(*arguments)
        model.model_validate_json(json.dumps(told))
        assert set(told) == set(model.model_fields), arguments
    assert (
        fleet.json("lane", "show", "shape")["run"] == fleet.api.get(f"/api/agents/runs/{runs['shape']}").json()["run"]
    )


def test_lanes_are_narrowed_and_paged(fleet: People) -> None:
    project_id = fleet.project("Many")
    runs = fleet.lanes(project_id, *[f"lane-{number}" for number in range(7)])
    fleet.claim(runs["lane-3"], "many.1")
    fleet.report(runs["lane-3"], worker_id="many.1", log_line="41 tests passed")
    fleet.claim(runs["lane-5"], "many.2")
    fleet.report(runs["lane-5"], ("phase_change", {"phase": "waiting", "for": "permission"}), worker_id="many.2")

    def keys(*arguments: str) -> list[str]:
        return sorted(run["lane_key"] for run in fleet.json("lanes", "-p", project_id[-8:], *arguments)["runs"])

    assert len(keys()) == 7
    assert keys("--state", "running") == ["lane-3", "lane-5"]
    assert keys("-s", "running", "-s", "claimed", "--worker", "many.2") == ["lane-5"]
    assert keys("--needs-attention") == ["lane-5"]
    assert keys("--search", "PASSED tests") == ["lane-3"]
    assert keys("--role", "qa") == []
    assert keys("--plan", "Plan of lane-0", "--search", "lane-6") == ["lane-6"]

    first = fleet.json("lanes", "-p", "Many", "--limit", "5")
    assert (len(first["runs"]), first["next_cursor"] is None) == (5, False)
    short = fleet.run("lanes", "-p", "Many", "--limit", "5")
    assert "5 shown, and there are more" in short.err
    lines = fleet.run("lanes", "-p", "Many", "--all", "-o", "jsonl").out.splitlines()
    assert sorted(json.loads(line)["lane_key"] for line in lines) == [f"lane-{number}" for number in range(7)]


def test_tables_say_it_in_words_that_fit(fleet: People) -> None:
    project_id = fleet.project("Tables")
    runs = fleet.lanes(project_id, "table-lane", prompt="Do\x1b[2J it.\nAll of it.")
    fleet.claim(runs["table-lane"], "table.1")
    waiting = ("phase_change", {"phase": "waiting", "for": "permission"})
    fleet.report(runs["table-lane"], waiting, worker_id="table.1", log_line="\x1b[31mMay I?\u202e " + "long " * 300)
    heading, row = at_100(fleet, "lanes", "--project", "Tables")
    assert heading.split("  ")[0] == "id"
    assert len(row) <= 100
    assert row.split()[:4] == [runs["table-lane"][-8:], "table-lane", "backend", "running"]
    assert "waits for you" in row
    assert "May I?<U+202E> long" in row
    shown = "\n".join(at_100(fleet, "lane", "show", "table-lane"))
    assert "needs a hand: waits for you" in shown
    assert "\nDo it.\nAll of it." in shown
    assert "\x1b" not in shown
    (worker,) = at_100(fleet, "workers", "-p", "Tables")[1:]
    assert worker.startswith("table.1 ")
    assert "table-lane (running)" in worker


def test_things_go_by_name_and_by_either_end_of_their_id(fleet: People) -> None:
    project_id = fleet.project("Names")
    one, other = fleet.lanes(project_id, "twin"), fleet.lanes(project_id, "twin")
    for text in (one["twin"], one["twin"].upper(), one["twin"][-8:]):
        assert fleet.json("lane", "show", text)["run"]["id"] == one["twin"]
    both = error_of(fleet.run("lane", "show", "twin", "--json"), 2)["error"]
    assert one["twin"][-8:] in both
    assert other["twin"][-8:] in both
    fleet.post(f"/api/agents/runs/{one['twin']}/cancel")
    # Only one of them can still be looked at as being under way.
    assert fleet.json("lane", "show", "twin")["run"]["id"] == other["twin"]
    assert fleet.json("lane", "retry", "twin")["results"][0]["run"]["id"] == one["twin"]
    assert error_of(fleet.run("lane", "show", "no-such-lane", "--json"), 15)["code"] == "NOT_FOUND"
    assert error_of(fleet.run("lane", "show", "00000000-0000-7000-8000-000000000000", "--json"), 15)["error"]


# --- steering -----------------------------------------------------------------------------------------------------


def test_lanes_are_steered_each_with_a_result(fleet: People) -> None:
    project_id = fleet.project("Steered")
    runs = fleet.lanes(project_id, "held", "free")
    fleet.claim(runs["held"], "steered.1")
    both = fleet.run("lane", "pause", "held", "free", "nothing")
    assert both.code == 19
    assert both.out == f"held ({runs['held'][-8:]}): paused; steered.1 hears of it with its next report\n"
    assert [line.split(":")[1] for line in both.err.splitlines()] == [" free", " nothing"]
    told = json.loads(fleet.run("lane", "pause", "held", "free", "--json").out)["results"]
    assert [(result["asked"], result["ok"]) for result in told] == [("held", True), ("free", False)]
    assert told[1]["error"]["code"] == "NOT_CLAIMED"
    assert told[1]["error"]["exit_code"] == 17
    assert fleet.json("lane", "resume", "held")["results"][0]["run"]["state"] == "running"
    assert fleet.run("lane", "pause", "free").code == 17

    for verb in ("release", "cancel"):
        asked = error_of(fleet.run("lane", verb, "held", "--json"), 2)
        assert "--yes" in asked["error"]
    released = fleet.json("lane", "release", "held", "--yes", "--reason", "a better one", "--retry-after", "1h")
    assert released["results"][0]["run"]["state"] == "released"
    assert released["results"][0]["run"]["not_before"] is not None
    assert fleet.json("lane", "cancel", "held", "free", "--yes")["results"][1]["run"]["state"] == "failed"
    assert fleet.run("lane", "cancel", "free", "--yes").code == 17
    assert fleet.run("lane", "retry", "free").out == f"free ({runs['free'][-8:]}): queued again\n"


def test_plans_are_made_approved_and_rejected(fleet: People, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        "project: Planned\ntitle: All of it\nlanes:\n  - {laneKey: a, title: A, role: qa}\n"
        "  - {laneKey: b, title: B, role: qa, after: [a]}\n",
        "utf-8",
    )
    assert error_of(fleet.run("plan", "create", str(path), "--json"), 15)["error"].endswith("--create-project makes it")
    assert "nothing is wrong" in fleet.run("plan", "create", str(path), "--dry-run", "--create-project").out
    made = fleet.json("plan", "create", str(path), "--create-project")["plan"]
    assert (made["title"], made["status"], made["lanes"][1]["after"]) == ("All of it", "pending", ["a"])
    shown = fleet.run("plan", "show", "All of it").out
    assert "status:  pending" in shown
    assert fleet.run("plan", "reject", "All of it", "--reason", "not now").code == 0
    assert fleet.json("plan", "show", made["id"])["plan"]["rejection_reason"] == "not now"
    assert fleet.run("plan", "approve", "All of it").code == 17
    approved = fleet.json("plan", "create", str(path), "--approve")
    assert [(run["lane_key"], run["state"]) for run in approved["runs"]] == [("a", "queued"), ("b", "queued")]
    assert fleet.run("plan", "reject", approved["plan"]["id"], "--reason", "late").code == 17
    assert [plan["status"] for plan in fleet.json("plan", "list", "-p", "Planned")["plans"]] == ["approved", "rejected"]
    assert len(fleet.json("plan", "list", "-p", "Planned", "--status", "rejected")["plans"]) == 1


def test_what_only_the_server_knows_has_its_line_too(fleet: People, tmp_path: Path) -> None:
    project_id = fleet.project("Lines")
    path = tmp_path / "plan.yaml"
    path.write_text(
        f"project: {project_id}\ntitle: T\nlanes:\n  - laneKey: a\n    title: A\n    role: qa\n"
        "    ticketIds:\n      - 00000000-0000-7000-8000-000000000000\n",
        "utf-8",
    )
    for arguments in ((), ("--dry-run",)):
        ended = fleet.run("plan", "create", str(path), *arguments)
        expected = f"heartlane: {path}:8: lanes.0.ticketIds.0: is not a ticket of the project\n"
        assert (ended.code, ended.out, ended.err) == (2, "", expected)


def test_a_dry_run_without_a_server_checks_what_it_can(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("title: T\nlanes:\n  - {laneKey: a, title: A, role: qa}\n", "utf-8")
    ended = here("plan", "create", str(path), "--dry-run", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["server_asked"] is False


def test_tickets_milestones_and_plans_from_them(fleet: People) -> None:
    fleet.json("projects", "create", "Tickets", "--default-branch", "main")
    here_ = ("-p", "Tickets")
    fleet.json("milestones", "create", "Spring", *here_, "--due", "2027-03-01T00:00:00Z")
    described = ("-d", "A list of all of them.")
    one = fleet.json("tickets", "create", "Search by tag", *described, *here_, "-r", "backend", "--milestone", "Spring")
    fleet.json(
        "tickets", "create", "Export as CSV", *described, *here_, "-r", "backend", "-r", "qa", "--milestone", "Spring"
    )
    assert len(fleet.json("tickets", "list", *here_, "--milestone", "Spring")["tickets"]) == 2
    assert "backend, qa" in fleet.run("tickets", "list", *here_).out
    plan = fleet.json("plan", "from-tickets", "Spring", *here_)["plan"]
    assert [lane["laneKey"] for lane in plan["lanes"]] == ["backend", "qa"]
    assert fleet.json("tickets", "move", "Search by tag", "--to", "validation", *here_)["results"][0]["ok"]
    closed = fleet.run("tickets", "close", "Search by tag", *here_)
    assert closed.code == 17
    assert "must be done or skipped first" in closed.err
    shown = fleet.run("tickets", "show", one["ticket"]["id"][-8:], *here_).out
    assert "stage:     validation" in shown
    assert shown.endswith("\nA list of all of them.\n")
    assert fleet.json("milestones", "close", "Spring", *here_)["milestone"]["status"] == "closed"
    assert fleet.json("milestones", "list", *here_)["milestones"] == []


def test_projects_are_set_up_by_the_names_that_the_server_has(fleet: People) -> None:
    fleet.project("Set up")
    changed = fleet.json("projects", "set", "Set up", "max_failures=3", "default_branch=1.x")["project"]
    assert (changed["max_failures"], changed["default_branch"]) == (3, "1.x")
    assert fleet.json("projects", "set", "Set up", "default_branch=null")["project"]["default_branch"] is None
    assert (
        "one of name, repo_url"
        in error_of(fleet.run("projects", "set", "Set up", "max_failure=3", "--json"), 2)["error"]
    )
    refused = error_of(fleet.run("projects", "set", "Set up", "max_failures=0", "--json"), 2)
    assert refused["issues"] == [{"path": "max_failures", "message": "must be at least 1"}]


# --- how they end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lanes", "--state", "runing"], "--state must be one of queued"),
        (["lanes", "--role", "chef"], "--role must be one of frontend"),
        (["lane", "events", "x", "--type", "log"], "--type must be one of heartbeat"),
        (["plan", "list", "--status", "open"], "--status must be one of pending"),
        (["tickets", "move", "x", "--to", "done"], "--to must be one of backlog"),
        (["lane", "release", "x", "--retry-after", "soon"], "--retry-after must be a number"),
        (["lanes", "--limit", "0"], "'--limit'"),
        (["lanes", "-o", "xml"], "xml"),
    ],
)
def test_wrong_input_ends_with_2_before_anything_is_asked(arguments: list[str], said: str) -> None:
    ended = here(*arguments)
    assert ended.code == 2
    assert said in ended.err


def test_each_way_of_not_getting_through_has_its_code(fleet: People) -> None:
    assert error_of(here("lanes", "--json"), 2)["error"].startswith("No server is named")
    gone = {"HEARTLANE_URL": "http://127.0.0.1:9", "HEARTLANE_TOKEN": "hlt_x"}
    unreachable = error_of(fleet.run("lanes", "--json", **gone), 10)
    assert unreachable["code"] == "SERVER_UNREACHABLE"
    assert error_of(fleet.run("lanes", "--json", HEARTLANE_TOKEN="hlt_wrong"), 11)["code"] == "NOT_AUTHENTICATED"
    assert error_of(fleet.run("lanes", "--json", HEARTLANE_URL=f"{fleet.url}/docs"), 15)["code"] == "NOT_FOUND"
