"""What a worker looks at, says and refuses before it takes on a lane."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

import pytest

from heartlane.cli.errors import CODE_OF
from heartlane.worker.spool_files import Header
from heartlane.worker.spools import folder_of
from tests.worker.test_doctor import CERTIFICATE, other_server
from tests.worker.test_work import RESULT, claude
from tests.worker.work_process import Lanes, Worker, of_another_version, wait_for


def test_a_branch_that_nobody_makes_is_refused(lanes: Lanes, worker: Worker) -> None:
    assert worker.start("--once", "--", "agent", "--on={branch}").wait() == CODE_OF["wrong_input"]
    assert "--worktree" in worker.said()


def test_an_agent_that_will_print_nothing_to_read_is_told_of(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    lanes.add("mute-agent", labels={"for": "mute-agent"})
    (tmp_path / "codex").write_text("#!/bin/sh\necho done\n", "utf-8")
    (tmp_path / "codex").chmod(0o700)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    worker.start("--once", "--label", "for=mute-agent", "--", "codex", "exec", "{prompt}", env=path)
    assert worker.wait() == 0, worker.said()
    assert "starts codex without the options" in worker.said()


def test_a_folder_that_takes_no_files_is_found_before_any_lane_is_claimed(
    lanes: Lanes, worker: Worker, tmp_path: Path
) -> None:
    (run_id,) = lanes.add("nowhere", labels={"for": "nowhere"})
    (tmp_path / "file").write_text("", "utf-8")
    state = {"HEARTLANE_STATE": str(tmp_path / "file" / "state")}
    assert worker.start("--once", "--label", "for=nowhere", "--", "true", env=state).wait() == CODE_OF["unusable"]
    assert "HEARTLANE_STATE" in worker.said()
    assert len(worker.said().splitlines()) == 1
    assert lanes.run(run_id)["attempt"] == 0


@pytest.mark.parametrize("way", ["a certificate that nobody trusts", "no TLS at all"])
def test_a_server_without_a_secure_connection_is_one_line_and_a_code_of_its_own(
    lanes: Lanes, worker: Worker, way: str
) -> None:
    if way == "no TLS at all":
        worker.start("--", "true", url=lanes.server.url.replace("http:", "https:"))
        assert worker.wait() == CODE_OF["tls_fault"], worker.said()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        with other_server(200, {}, b"", context) as url:
            worker.start("--", "true", url=url)
            assert worker.wait() == CODE_OF["tls_fault"], worker.said()
    (line,) = worker.said().splitlines()
    assert line.startswith("heartlane: no secure connection to https://127.0.0.1:")
    assert "--ca" in line


def test_a_spool_that_another_version_left_is_named_and_keeps_no_lane_from_being_worked(
    lanes: Lanes, worker: Worker, tmp_path: Path
) -> None:
    (run_id,) = lanes.add("newer", labels={"for": "newer"})
    folder = tmp_path / "state" / "spool" / "run.1.server"
    held = of_another_version(folder)
    os.utime(folder, (1, 1))  # of an age at which others are given up
    assert worker.start("--once", "--label", "for=newer", "--", "true").wait() == 0, worker.said()
    assert lanes.run(run_id)["state"] == "shipped"
    (said,) = [line for line in worker.said().splitlines() if "version" in line]
    assert str(folder) in said
    assert "heartlane spool flush" in said
    assert (folder / "00000001.log").read_bytes() == held


def test_a_spool_of_another_version_where_the_lanes_own_should_be_hands_it_back(
    lanes: Lanes, worker: Worker, tmp_path: Path
) -> None:
    (run_id,) = lanes.add("same", labels={"for": "same"})
    folder = folder_of(tmp_path / "state" / "spool", Header(lanes.server.url, run_id, 1, "w"))
    held = of_another_version(folder)
    ran = tmp_path / "ran"
    worker.start("--label", "for=same", "--", "touch", str(ran))
    assert worker.wait() == CODE_OF["spool_version"], worker.said()
    last = worker.said().splitlines()[-1]
    assert last.startswith(f"heartlane: {folder} was written by another version of Heartlane, in form 99")
    assert f"`heartlane spool discard {folder.name}`" in last
    run = lanes.run(run_id)
    assert (run["state"], run["failures"], run["attempt"]) == ("released", 0, 1)
    assert not ran.exists()
    assert (folder / "00000001.log").read_bytes() == held


def test_an_agent_that_is_not_logged_in_has_a_code_of_its_own(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("login", labels={"for": "login"})
    said = {**RESULT, "is_error": True, "result": "Invalid API key · Please run /login"}
    arguments = ("--once", "--label", "for=login", "--agent", "claude", "--", *claude(said))
    assert worker.start(*arguments).wait() == CODE_OF["not_logged_in"], worker.said()
    assert (lanes.run(run_id)["state"], lanes.run(run_id)["failures"]) == ("released", 0)


def test_a_worker_without_a_home_works(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    (run_id,) = lanes.add("homeless", labels={"for": "homeless"})
    command = ("env", "-u", "HOME", "-u", "XDG_STATE_HOME", sys.executable, "-c", "print('on')")
    arguments = ("--once", "--label", "for=homeless", "--", *command)
    assert worker.start(*arguments, env={"HOME": ""}).wait() == 0, worker.said()
    assert lanes.run(run_id)["state"] == "shipped"


CODEX = """#!/bin/sh
cd {folder}
if [ "$1" = login ]; then echo asked >> checks; test -e logged-in; exit; fi
echo '{{"type":"thread.started","thread_id":"t1"}}'
if [ ! -e logged-in ]; then
    echo '{{"type":"turn.failed","error":{{"message":"unexpected status 401 Unauthorized"}}}}'; exit 1
fi
echo '{{"type":"item.completed","item":{{"id":"i1","type":"agent_message","text":"Did it."}}}}'
echo '{{"type":"turn.completed","usage":{{"input_tokens":1,"output_tokens":1}}}}'
"""


def test_an_agent_gets_no_lane_until_its_own_check_says_that_it_is_logged_in(
    lanes: Lanes, worker: Worker, tmp_path: Path
) -> None:
    run_ids = lanes.add("one", "two", labels={"for": "logout"})
    (tmp_path / "codex").write_text(CODEX.format(folder=tmp_path), "utf-8")
    (tmp_path / "codex").chmod(0o700)
    worker.start("--label", "for=logout", "--agent", "codex", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    checks = tmp_path / "checks"
    wait_for(lambda: checks.exists() and "is still not logged in" in worker.said(), "a look at the login")
    assert sum(lanes.run(run_id)["attempt"] for run_id in run_ids) == 1
    assert "is still not logged in" in worker.said()
    (tmp_path / "logged-in").touch()
    for run_id in run_ids:
        assert lanes.wait(run_id, lambda run: run["state"] == "shipped")["failures"] == 0
