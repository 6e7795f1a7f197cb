"""How a command ends when it can't do what it was asked: one line on stderr, and a code from the table below.

Anything else that is raised is a fault of Heartlane's and shows its traceback.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from heartlane.wire.secrets import Redactor


class ExitCode(NamedTuple):
    """One row of the table.

    name        what it is called here; a `WorkerError`'s kind
    meaning     one sentence
    cure        one sentence: what a person does next; "" where there is nothing to do
    again       whether the same command, started again later, may go better; a service manager stops trying otherwise
    """

    code: int
    name: str
    meaning: str
    cure: str
    again: bool


EXIT_CODES: Final = (
    ExitCode(0, "done", "Done.", "", again=False),
    ExitCode(
        1,
        "unusable",
        "The database, the network or a file could not be used, or a check found something.",
        "Read the line; the same command may go better later.",
        again=True,
    ),
    ExitCode(2, "wrong_input", "What was typed or set is wrong.", "Correct what the line names.", again=False),
    ExitCode(
        10,
        "server_unreachable",
        "No server answers at the address: no network, no such host, nobody listens, or no answer in time.",
        "Check HEARTLANE_URL, and that the server runs; `heartlane doctor` says how far it gets.",
        again=True,
    ),
    ExitCode(
        11,
        "token_refused",
        "The server refused the token: unknown, expired, revoked, or of a scope that may not do this.",
        "Make one with `heartlane token create NAME --scope worker`, and set HEARTLANE_TOKEN.",
        again=False,
    ),
    ExitCode(
        12,
        "not_heartlane",
        "Something answers at the address, but it is not a Heartlane server.",
        "Correct HEARTLANE_URL: it is the address whose /healthz the server answers.",
        again=False,
    ),
    ExitCode(
        13,
        "tls_fault",
        "No secure connection: the certificate is not trusted, has expired, or is another host's.",
        "Correct the certificate, or the host in HEARTLANE_URL; SSL_CERT_FILE names an authority of your own.",
        again=False,
    ),
    ExitCode(
        14,
        "not_in_a_lane",
        "The command speaks to the worker of a lane, and there is none here.",
        "Run it from within a command that `heartlane work` started.",
        again=False,
    ),
    ExitCode(
        20,
        "command_not_found",
        "The command that should work the lane is not there.",
        "Install it, or put its folder into PATH.",
        again=False,
    ),
    ExitCode(
        21,
        "not_executable",
        "The command that should work the lane can't be executed.",
        "Make the file executable, or correct its first line.",
        again=False,
    ),
    ExitCode(
        22,
        "not_logged_in",
        "The agent has no valid login of its own.",
        "Log in to the agent as the user that runs the worker.",
        again=False,
    ),
    ExitCode(
        23,
        "prompt_unusable",
        "The prompt can't be given to the command: unreadable, or too long for an argument.",
        "Use {prompt_file} in place of {prompt}.",
        again=False,
    ),
    ExitCode(
        24,
        "not_a_repository",
        "What --worktree names is not a Git repository with a commit.",
        "Name a clone; `git status` in it must work for the worker's user.",
        again=False,
    ),
    ExitCode(
        25,
        "worktree_in_the_way",
        "A branch, a folder, a lock or uncommitted work stands where the lane's worktree should be.",
        "Do what the line says; nothing of it was touched.",
        again=False,
    ),
    ExitCode(
        26,
        "git_failed",
        "Git is missing, too old, or failed: a fetch, a push, a pull request.",
        "Read the line, which ends with Git's own words.",
        again=True,
    ),
    ExitCode(
        27,
        "spool_version",
        "The spool on disk was written by another version of Heartlane.",
        "Send what is in it with that version (`heartlane spool flush`), or move the spool away.",
        again=False,
    ),
    ExitCode(
        30,
        "lane_lost",
        "The lane went to another worker, or was cancelled, while this one worked.",
        "Nothing: what this worker had done was kept, and somebody else has the lane.",
        again=True,
    ),
    ExitCode(
        31,
        "lane_failed",
        "The lane was worked, and failed.",
        "Read the run's log; an operator can retry it.",
        again=True,
    ),
    ExitCode(129, "hung_up", "Ended with its terminal, after the lanes were given back.", "", again=False),
    ExitCode(130, "interrupted", "Ended by Ctrl-C.", "", again=False),
    ExitCode(143, "terminated", "Ended by SIGTERM, after the lanes were given back.", "", again=False),
)
"""Every exit code of `heartlane`. Codes are stable; new ones are added."""

CODE_OF: Final = {row.name: row.code for row in EXIT_CODES}

UNUSABLE: Final = CODE_OF["unusable"]
WRONG_INPUT: Final = CODE_OF["wrong_input"]
INTERRUPTED: Final = CODE_OF["interrupted"]


class CommandError(Exception):
    """A command can't go on. The text is one line; `exit_code` one of the table above."""

    def __init__(self, message: str, exit_code: int = WRONG_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def explain(error: Exception) -> tuple[str, int] | None:
    """The line and the exit code of an expected error, without any secret; None for one that nobody foresaw."""
    expected = _expected(error)
    if expected is None:
        return None
    message, code = expected
    return " ".join(Redactor().text(message).split()), code


def _expected(error: Exception) -> tuple[str, int] | None:
    from heartlane.worker.errors import WorkerError

    if isinstance(error, CommandError):
        return str(error), error.exit_code
    if isinstance(error, WorkerError):
        return str(error), CODE_OF[error.kind]
    if hasattr(error, "format_message"):  # what the parser of the command line raises, whichever it is built on
        return str(error.format_message()), WRONG_INPUT
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("heartlane"):
        return f"this needs the server's libraries ({error.name} is missing): install heartlane[server]", WRONG_INPUT
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__  # a timeout has no words of its own
        return what + (f": {error.filename}" if error.filename else ""), UNUSABLE
    return _expected_of_the_server(error)


def _expected_of_the_server(error: Exception) -> tuple[str, int] | None:
    try:
        from sqlalchemy.exc import DBAPIError

        from heartlane.server.settings import SettingsError
        from heartlane.store.errors import StoreError
        from heartlane.store.tokens import TokenError
    except ModuleNotFoundError:
        return None  # a worker's machine: what raises these isn't here either
    if isinstance(error, SettingsError | TokenError):
        return str(error), WRONG_INPUT
    if isinstance(error, StoreError):
        return str(error), UNUSABLE
    if isinstance(error, DBAPIError):
        return f"the database can't be used: {error.orig}", UNUSABLE
    return None
