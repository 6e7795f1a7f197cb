"""How what surrounds the agent says that something can't be done: one exception, whose kind is an exit code's name."""

from __future__ import annotations

from typing import Literal

Kind = Literal[
    "unusable",
    "wrong_input",
    "server_unreachable",
    "token_refused",
    "not_heartlane",
    "tls_fault",
    "not_in_a_lane",
    "command_not_found",
    "not_executable",
    "not_logged_in",
    "prompt_unusable",
    "not_a_repository",
    "worktree_in_the_way",
    "worktree_busy",
    "git_failed",
    "spool_version",
    "lane_lost",
    "lane_failed",
]
"""The names of exit codes (`heartlane.cli.errors` has their table) that a worker's errors may end a command with."""


class WorkerError(Exception):
    """It can't be done. The text is one line that says why and what to do about it, without a secret.

    kind    name of the exit code of a command that ends by it
    """

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message)
        self.kind: Kind = kind
