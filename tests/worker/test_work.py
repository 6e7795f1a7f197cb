"""`heartlane work` on a real server: lanes that ship, fail, are steered, and what becomes of the agent meanwhile."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest

from heartlane.cli.errors import CODE_OF
from tests.worker.work_process import Lanes, Worker, alive, prints, python, wait_for

TICKS = """
import os, sys, time
print(os.getpid(), flush=True)
for n in range(600):
    print("tick", n, flush=True)
    time.sleep(0.1)
"""


def claude(*lines: dict[str, object]) -> list[str]:
    """A command that prints as Claude Code does."""
    return prints(*[json.dumps(line) for line in lines])


RESULT: dict[str, object] = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "result": "Did it.",
    "session_id": "s1",
}
RESULT |= {"num_turns": 2, "total_cost_usd": 0.5, "usage": {"input_tokens": 10, "output_tokens": 5}}
TOOL = {"type": "tool_use", "id": "t1", "name": "Edit", "input": {"file_path": "a.py"}}
EDIT: dict[str, object] = {"type": "assistant", "message": {"id": "m1", "role": "assistant", "content": [TOOL]}}


def started(lanes: Lanes, run_id: str) -> int:
    """The process id of an agent that begins with it."""
    return int(wait_for(lambda: [line for line in lanes.lines(run_id) if line.isdigit()], "the agent's first line")[0])


def process_state(pid: int) -> str:
    """The letter that the system gives the state of a process; `T`: it is held still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_command_ships_its_lane_and_everything_it_printed_is_there(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("plain", labels={"for": "plain"})
    script = (
        "import os, sys\nprint('café', sys.argv[1].split()[1])\nprint(os.environ['HEARTLANE_TITLE'])\n"
        "sys.stderr.write('a warning\\n')"
    )
    assert worker.start("--once", "--label", "for=plain", "--", *python(script, "{prompt}")).wait() == 0, worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 1, 0)
    assert sorted(lanes.lines(run_id)) == ["Lane plain", "a warning", "café plain."]
    events = lanes.events(run_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "ship_complete"


def test_an_agents_output_becomes_actions_and_its_result_the_summary(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("agent", labels={"for": "agent"})
    assert worker.start("--once", "--label", "for=agent", "--agent", "claude", "--", *claude(EDIT, RESULT)).wait() == 0
    run = lanes.run(run_id)
    assert (run["state"], run["summary"]) == ("shipped", "Did it.")
    (action,) = lanes.events(run_id, "action")
    assert (action["payload"]["tool"], action["payload"]["file"]) == ("Edit", "a.py")
    (shipped,) = lanes.events(run_id, "ship_complete")
    assert (shipped["payload"]["cost_usd"], shipped["payload"]["turns"], shipped["payload"]["agent"]) == (
        0.5,
        2,
        "claude",
    )


def test_a_line_of_ten_megabytes_is_read_like_any_other(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("large", labels={"for": "large"})
    script = (
        "import json, sys\nedit, result = sys.argv[1:3]\n"
        "part = {'type': 'tool_result', 'tool_use_id': 't1', 'content': 'p' * 10_000_000}\n"
        "told = {'type': 'user', 'message': {'role': 'user', 'content': [part]}}\n"
        "print(edit)\nprint(json.dumps(told))\nprint(result)"
    )
    command = python(script, json.dumps(EDIT), json.dumps(RESULT))
    worker.start("--once", "--label", "for=large", "--agent", "claude", "--", *command)
    assert worker.wait() == 0, worker.said()
    began, ended = (action["payload"] for action in lanes.events(run_id, "action"))
    assert (began["id"], ended["id"], ended["ok"], ended["file"]) == ("t1", "t1", True, "a.py")
    assert lanes.run(run_id)["state"] == "shipped"
    assert not [line for line in lanes.lines(run_id) if "left out" in line or "ppp" in line]


def test_an_agent_that_ends_without_a_result_has_not_shipped(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("mute", labels={"for": "mute"})
    code = worker.start("--once", "--label", "for=mute", "--agent", "claude", "--", *claude(EDIT)).wait()
    assert code == CODE_OF["lane_failed"], worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["failures"]) == ("released", 1)
    assert lanes.events(run_id, "error")[0]["payload"]["fatal"] is False


def test_a_failure_can_end_the_run(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("fail", labels={"for": "fail"})
    arguments = ("--once", "--label", "for=fail", "--on-failure", "fail", "--")
    assert worker.start(*arguments, *prints("no luck", code=3)).wait() == CODE_OF["lane_failed"]
    run = lanes.run(run_id)
    assert run["state"] == "failed"
    assert "no luck" in run["error"]


def test_a_usage_limit_gives_the_lane_back_uncounted_and_lets_the_worker_rest(lanes: Lanes, worker: Worker) -> None:
    run_id, other = lanes.add("limit", "limit-2", labels={"for": "limit"})
    limit = {**RESULT, "is_error": True, "api_error_status": 429, "result": "You've hit your usage limit."}
    worker.start("--label", "for=limit", "--agent", "claude", "--", *claude(EDIT, limit))
    run = lanes.wait(run_id, lambda run: run["state"] == "released")
    assert run["failures"] == 0
    assert run["not_before"] is not None
    wait_for(lambda: "no lane is claimed for" in worker.said(), "the worker's word on its rest")
    assert lanes.run(other)["attempt"] == 0


def test_a_claim_that_waited_since_before_a_limit_gives_no_lane_to_the_agent(lanes: Lanes, worker: Worker) -> None:
    (limited,) = lanes.add("limit", labels={"for": "waits"})
    limit = {**RESULT, "is_error": True, "api_error_status": 429, "result": "You've hit your usage limit."}
    slow = python("import sys, time\ntime.sleep(3)\nprint(sys.argv[1])", json.dumps(limit))
    worker.start("--label", "for=waits", "--parallel", "2", "--agent", "claude", "--", *slow)
    wait_for(lambda: "no lane is claimed for" in worker.said(), "the worker's word on its rest")
    (late,) = lanes.add("late", labels={"for": "waits"})
    wait_for(lambda: "late: given back unworked" in worker.said(), "the lane given back")
    run = lanes.run(late)
    assert (run["state"], run["attempt"], run["failures"], run["not_before"]) == ("released", 1, 0, None)
    assert [event["type"] for event in lanes.events(late)] == ["claimed", "released"]
    assert lanes.run(limited)["failures"] == 0


def test_a_success_command_must_pass(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("check", labels={"for": "check"})
    arguments = ("--once", "--label", "for=check", "--success", "echo 2 tests failed; exit 1", "--")
    assert worker.start(*arguments, *prints("done")).wait() == CODE_OF["lane_failed"]
    assert lanes.run(run_id)["state"] == "released"
    (error,) = lanes.events(run_id, "error")
    assert error["payload"]["reason"] == "check"
    assert "2 tests failed" in error["payload"]["message"]
    assert "2 tests failed" in lanes.lines(run_id)


def test_an_agent_that_lingers_after_its_result_is_ended_and_has_shipped(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("linger", labels={"for": "linger"})
    script = f"import time\nprint({json.dumps(RESULT)!r}, flush=True)\ntime.sleep(600)"
    arguments = ("--once", "--label", "for=linger", "--agent", "claude", "--linger", "1s", "--")
    assert worker.start(*arguments, *python(script)).wait() == 0, worker.said()
    assert lanes.run(run_id)["state"] == "shipped"


def test_pause_resume_and_cancel_reach_the_agent(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("steer", labels={"for": "steer"})
    worker.start("--once", "--label", "for=steer", "--", *python(TICKS))
    pid = started(lanes, run_id)

    lanes.steer(run_id, "pause")
    wait_for(lambda: process_state(pid) == "T", "a frozen agent", 2.0)
    lanes.steer(run_id, "resume")
    wait_for(lambda: process_state(pid) != "T", "a thawed agent", 2.0)
    lanes.steer(run_id, "cancel")
    wait_for(lambda: not alive(pid), "an ended agent", 6.0)
    assert worker.wait() == CODE_OF["lane_lost"]
    assert lanes.run(run_id)["state"] == "failed"


def test_a_budget_that_is_used_up_holds_the_agent_still_until_a_person_lets_it_go_on(
    lanes: Lanes, worker: Worker
) -> None:
    run_id, other = lanes.add("held", "spends", labels={"for": "budget"})
    quiet = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    worker.start("--once", "--label", "for=budget", "--lease", "600", "--", *python(quiet))
    pid = started(lanes, run_id)
    budget = f"/api/projects/{lanes.project}/budget"
    # The other tests' agents have spent of this project, too.
    so_far = lanes.http.get(budget).raise_for_status().json()["budget"]["spent"]["usd_total"]
    lanes.http.put(budget, json={"usd_total": so_far + 1}).raise_for_status()
    try:
        # The worker itself is long not due a report when somebody else's lane uses the budget up.
        lanes.steer(other, "claim", worker_id="spends")
        spent = [{"type": "heartbeat", "payload": {"usage": {"cost_usd": 1.5}}}]
        lanes.steer(other, "events", worker_id="spends", events=spent)
        lanes.wait(run_id, lambda run: run["needs_attention"] == "budget")
        wait_for(lambda: process_state(pid) == "T", "a frozen agent", 2.0)
    finally:
        lanes.http.put(budget, json={}).raise_for_status()
    lanes.wait(run_id, lambda run: run["needs_attention"] is None)
    wait_for(lambda: process_state(pid) != "T", "a thawed agent", 2.0)
    lanes.steer(other, "cancel")
    lanes.steer(run_id, "cancel")
    assert worker.wait() == CODE_OF["lane_lost"]


def test_an_agent_whose_lane_an_operator_takes_is_ended(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("taken", labels={"for": "taken"})
    worker.start("--once", "--label", "for=taken", "--", *python(TICKS))
    pid = started(lanes, run_id)
    lanes.steer(run_id, "release", reason="by hand")
    wait_for(lambda: not alive(pid), "an ended agent", 6.0)
    assert worker.wait() == CODE_OF["lane_lost"]


def test_a_worker_that_is_told_to_stop_ends_its_agent_and_gives_the_lane_back(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("stop", labels={"for": "stop"})
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TICKS
    worker.start("--label", "for=stop", "--grace", "1s", "--", *python(stubborn))
    pid = started(lanes, run_id)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == CODE_OF["terminated"], worker.said()
    assert not alive(pid)
    run = lanes.run(run_id)
    assert (run["state"], run["failures"]) == ("released", 0)
    assert lanes.events(run_id, "released")[0]["payload"]["reason"] == "the worker was told to stop"


def test_an_idle_worker_stops_at_once_and_a_draining_one_finishes_first(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("drain", labels={"for": "drain"})
    worker.start("--label", "for=drain", "--", *python("import time\nprint(1, flush=True)\ntime.sleep(1.5)"))
    wait_for(lambda: lanes.lines(run_id), "the agent's first line")
    worker.signal(signal.SIGUSR1)
    assert worker.wait() == 0
    assert lanes.run(run_id)["state"] == "shipped"

    worker.start("--label", "for=drain", "--", *prints("x"))
    wait_for(lambda: worker.said().count("waiting for lanes") == 2, "a worker that waits")
    worker.signal(signal.SIGINT)
    assert worker.wait(5) == CODE_OF["interrupted"]


def test_a_killed_worker_leaves_nothing_running_and_the_next_sends_what_it_left(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("killed", labels={"for": "killed"})
    worker.start("--label", "for=killed", "--lease", "60", "--", *python(TICKS))
    pid = started(lanes, run_id)
    worker.kill()
    wait_for(lambda: not alive(pid), "an agent that died with its worker", 3.0)
    # The spool holds ticks that weren't sent; the next worker sends them, and gives the lane back at once.
    worker.start("--once", "--label", "for=killed", "--", *prints("second"))
    assert worker.wait() == 0, worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 2, 0)
    ticks = [line for line in lanes.lines(run_id) if line.startswith("tick")]
    assert ticks == [f"tick {n}" for n in range(len(ticks))]


def test_what_an_agent_must_not_tell_is_masked(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("secret", labels={"for": "secret"})
    key = "ghp_" + "a1B2" * 9
    script = (
        f"import os\nprint('key', {key!r})\nprint('mine', os.environ['DEPLOY_SECRET'])\nprint('house rule 4711-abc')"
    )
    arguments = ("--once", "--label", "for=secret", "--redact", r"\d{4}-abc", "--")
    assert worker.start(*arguments, *python(script), env={"DEPLOY_SECRET": "correct-horse-battery"}).wait() == 0
    said = json.dumps(lanes.events(run_id))
    assert all(text not in said for text in (key, "correct-horse-battery", "4711-abc", lanes.token))
    assert len(lanes.lines(run_id)) == 3


def test_an_agent_speaks_through_its_worker(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("inside", labels={"for": "inside"})
    heartlane = f"{shlex.quote(sys.executable)} -m heartlane"
    script = (
        f"{heartlane} lane --json > lane.json"
        f" && {heartlane} report --phase tests --log '41 passed' --action edit --file a.py"
        f" && {heartlane} ship --branch totals --summary 'All done.'"
    )
    arguments = ("--once", "--label", "for=inside", "--", "sh", "-c", script)
    assert worker.start(*arguments, env={"PYTHONPATH": str(Path.cwd())}).wait() == 0, worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["branch"], run["summary"]) == ("shipped", "totals", "All done.")
    assert lanes.events(run_id, "phase_change")[0]["payload"]["phase"] == "tests"
    assert "41 passed" in lanes.lines(run_id)


def test_limits_are_told_of_or_end_the_agent(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("silent", labels={"for": "silent"})
    sleeps = python("import time\ntime.sleep(600)")
    worker.start("--label", "for=silent", "--first-output", "1s", "--max-time", "4s", "--once", "--", *sleeps)
    lanes.wait(run_id, lambda run: run["needs_attention"] == "stalled")
    assert worker.wait() == CODE_OF["lane_failed"]
    errors = [event["payload"] for event in lanes.events(run_id, "error")]
    assert [error["reason"] for error in errors] == ["stalled", "killed"]
    assert "--max-time" in errors[1]["message"]


def test_a_burst_is_thinned_out_and_counted(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("burst", labels={"for": "burst"})
    script = "for n in range(200_000): print('line', n)\nprint('the end', flush=True)"
    assert worker.start("--once", "--label", "for=burst", "--", *python(script)).wait() == 0, worker.said()
    events = lanes.events(run_id, "log_line")
    left_out = sum(event["payload"].get("left_out", 0) for event in events)
    # On a machine that is too busy to answer in time, the worker's own word on it stands among them.
    said = [event["payload"]["line"] for event in events if "left_out" not in event["payload"]]
    told = [line for line in said if not line.startswith("The server could not be reached")]
    assert left_out + len(told) == 200_001
    assert len(events) < 2_000
    assert events[-1]["payload"]["line"] == "the end"


def test_several_lanes_at_once(lanes: Lanes, worker: Worker) -> None:
    run_ids = lanes.add("a", "b", "c", labels={"for": "parallel"})
    script = "import time\nprint('begun', flush=True)\ntime.sleep(3)"
    worker.start("--label", "for=parallel", "--parallel", "3", "--", *python(script))
    wait_for(lambda: all(lanes.run(run_id)["state"] == "running" for run_id in run_ids), "three lanes at once", 12)
    for run_id in run_ids:
        lanes.wait(run_id, lambda run: run["state"] == "shipped")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == CODE_OF["terminated"]


@pytest.mark.parametrize(
    ("arguments", "env", "kind", "says"),
    [
        (("--", "no-such-command-anywhere"), {}, "command_not_found", "no-such-command-anywhere"),
        (("--", "/etc/passwd"), {}, "not_executable", "/etc/passwd"),
        (("--worktree", "/", "--", "true"), {}, "not_a_repository", "Git repository"),
        (("--", "true"), {"HEARTLANE_TOKEN": "hlt_" + "x" * 43}, "token_refused", "token create"),
        (("--agent", "nobody", "--", "true"), {}, "wrong_input", "nobody"),
        (("--role", "plumber", "--", "true"), {}, "wrong_input", "plumber"),
        (("--redact", "(", "--", "true"), {}, "wrong_input", "("),
        (("--lease", "0", "--", "true"), {}, "wrong_input", "--lease"),
        (("--stall", "soon", "--", "true"), {}, "wrong_input", "--stall"),
        ((), {}, "wrong_input", "--"),
        (("--", "true"), {"HEARTLANE_URL": "ftp://x"}, "wrong_input", "ftp://x"),
    ],
)
def test_what_cant_work_is_one_line_and_a_code_of_its_own(
    *, lanes: Lanes, worker: Worker, arguments: tuple[str, ...], env: dict[str, str], kind: str, says: str
) -> None:
    (run_id,) = lanes.add("wrong", labels={"for": kind})
    assert worker.start("--label", f"for={kind}", *arguments, env=env).wait() == CODE_OF[kind], worker.said()
    (line,) = [line for line in worker.said().splitlines() if not line.startswith("usage:")]
    assert line.startswith("heartlane: ")
    assert says in line
    run = lanes.run(run_id)
    assert (run["worker_id"], run["failures"]) == (None, 0)
