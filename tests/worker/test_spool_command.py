"""`heartlane spool` on what a killed worker left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from heartlane.cli.errors import CODE_OF
from tests.worker.test_work import TICKS, started
from tests.worker.work_process import Lanes, Worker, of_another_version, python


def spool(lanes: Lanes, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heartlane", "spool", *arguments, "--state", str(folder / "state")],
        env={**os.environ, "HEARTLANE_URL": lanes.server.url, "HEARTLANE_TOKEN": lanes.token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_a_killed_worker_left_is_listed_shown_and_sent(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    (run_id,) = lanes.add("left", labels={"for": "left"})
    worker.start("--label", "for=left", "--", *python(TICKS))
    started(lanes, run_id)
    listed = json.loads(spool(lanes, tmp_path, "list", "--json").stdout)["spools"]
    assert [(one["run_id"], one["in_use"]) for one in listed] == [(run_id, True)]
    worker.kill()
    assert run_id in spool(lanes, tmp_path, "list").stdout
    shown = [json.loads(line) for line in spool(lanes, tmp_path, "show", run_id).stdout.splitlines()]
    assert any(one["event"]["payload"]["line"].startswith("tick") for one in shown)

    sent = spool(lanes, tmp_path, "flush")
    assert (sent.returncode, "sent" in sent.stdout) == (0, True), sent.stderr
    assert lanes.run(run_id)["state"] == "released"
    assert len(lanes.lines(run_id)) >= len(shown)
    nothing = spool(lanes, tmp_path, "list")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert spool(lanes, tmp_path, "show", run_id).returncode == CODE_OF["wrong_input"]


def test_a_spool_of_another_version_is_left_alone_and_has_a_code_of_its_own(lanes: Lanes, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "spool" / "run.1.server"
    held = of_another_version(folder)
    for verb in (["flush"], ["show", "run.1"]):
        ended = spool(lanes, tmp_path, *verb)
        assert ended.returncode == CODE_OF["spool_version"], ended.stderr
        assert "version" in ended.stderr
    assert "version" in spool(lanes, tmp_path, "list").stdout
    assert (folder / "00000001.log").read_bytes() == held
    assert spool(lanes, tmp_path, "discard", "run.1").returncode == 0
    assert not folder.exists()
