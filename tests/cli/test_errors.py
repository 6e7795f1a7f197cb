"""How commands end: the table of exit codes, and which errors lead to which."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from heartlane.cli.errors import CODE_OF, EXIT_CODES, explain
from heartlane.worker.errors import Kind, WorkerError
from tests.cli.command import environment


def test_every_exit_code_is_one_things_alone_and_says_what_to_do() -> None:
    codes = [row.code for row in EXIT_CODES]
    assert codes == sorted(set(codes))
    assert len(CODE_OF) == len(EXIT_CODES)
    for row in EXIT_CODES:
        assert row.meaning.endswith(".")
        assert row.cure.endswith(".") or row.name in ("done", "hung_up", "interrupted", "terminated")
        # A shell has 126 and up for itself; the last rows are its own words for the signals they name.
        assert row.code < 126 or row.code in (129, 130, 143)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_of_error_of_a_worker_has_a_code(kind: Kind) -> None:
    assert explain(WorkerError("so it is", kind)) == ("so it is", CODE_OF[kind])


def test_errors_of_the_system_are_explained_on_a_workers_machine_too() -> None:
    script = (
        "import sys\n"
        "for name in ('sqlalchemy', 'pydantic_settings', 'structlog'): sys.modules[name] = None\n"
        "from heartlane.cli.errors import explain\n"
        "print(explain(PermissionError(13, 'Permission denied', 'spool')), explain(ZeroDivisionError()))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "('Permission denied: spool', 1) None\n"
