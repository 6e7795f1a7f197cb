"""What is published of a lane, and when: nothing before the lease is confirmed. On real repositories."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from heartlane.worker.agents import open_adapter
from heartlane.worker.child import Exit
from heartlane.worker.keeper import Loss
from heartlane.worker.options import WorkOptions
from heartlane.worker.redact import Redactor
from heartlane.worker.repository import Repository
from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import Header
from heartlane.worker.starting import Checked
from heartlane.worker.status import LaneStatus
from heartlane.worker.telling import Teller, Voice
from heartlane.worker.verdict import Verdict, judge, lost
from heartlane.worker.watch import Watched
from heartlane.worker.workplace import Workplace
from heartlane.worker.worktree import prepare
from tests.worker.repositories import git, own_settings, run_of, with_remote

BRANCH = "heartlane/api-00000001"


def test_nothing_is_pushed_before_the_lease_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_settings(tmp_path, monkeypatch)
    repo, origin = with_remote(tmp_path)
    options = WorkOptions(command=("true",), worktree=repo, push=True, success="true")
    order: list[str] = []

    def pushed() -> list[str]:
        return [line for line in git(origin, "branch", "--list", "heartlane/*").split("\n") if line]

    def check() -> Checked:
        order.append("checked")
        return Checked(True, "")

    adapter = open_adapter("claude")
    adapter.begin(datetime.now(UTC), 0.0)
    adapter.read(json.dumps({"type": "result", "subtype": "success", "is_error": False, "result": "Did it."}), 0.0)
    adapter.finish()
    watched = Watched(Exit(0, None), None, None, lingered=False, gone=True)
    spool = Spool.open(Header("http://h", "r", 1, "w"), root=tmp_path / "spool")
    with spool, prepare(Repository.open(repo), run_of(), root=tmp_path / "worktrees") as worktree:
        (worktree.path / "new.txt").write_text("new\n", "utf-8")
        voice = Voice(Teller(spool, Redactor(), LaneStatus("api", 1, ""), 100), {}, lambda: None)

        def judged(answer: Verdict | None) -> Verdict:
            def refused() -> Verdict | None:
                order.append("asked")
                assert pushed() == [], "it was pushed before anybody had asked whether the lane is still ours"
                return answer

            return judge(
                adapter=adapter,
                watched=watched,
                voice=voice,
                workplace=Workplace(worktree, options, lambda note: None),
                options=options,
                run=run_of(title="Totals"),
                check=check,
                refused=refused,
            )

        verdict = judged(lost(Loss("CLAIM_LOST", "somebody else has it")))
        assert (verdict.kind, verdict.code) == ("lost", "CLAIM_LOST")
        assert pushed() == []
        assert order == ["checked", "asked"]
        assert judged(None).kind == "shipped"
    assert [name.strip() for name in pushed()] == [BRANCH]
