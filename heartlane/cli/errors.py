"""How a command ends when it can't do what it was asked: one line on stderr, and a code from the table below.

Where the command line asks for JSON, the line is a JSON object in the shape of the API's own errors, with `exit_code`
beside. Anything else that is raised is a fault of Heartlane's and shows its traceback.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heartlane.wire.secrets import Redactor

if TYPE_CHECKING:
    from heartlane.client.errors import ApiError, HeartlaneError


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
        15,
        "not_found",
        "There is no such lane, plan, project or other thing, or the token can't see it.",
        "Look it up: `heartlane lanes`, `heartlane plan list`, `heartlane projects list`.",
        again=False,
    ),
    ExitCode(
        16,
        "not_allowed",
        "The token is good, but its scope or its project doesn't cover this.",
        "Use a token of the scope that the line names: `heartlane token create NAME --scope operator`.",
        again=False,
    ),
    ExitCode(
        17,
        "refused",
        "The thing is in a state that doesn't allow this: a lane that has ended, a plan that was rejected.",
        "Read the line, which says how it stands, and look at it with `show`.",
        again=False,
    ),
    ExitCode(
        18,
        "busy",
        "The server can't do this now, or was asked too often.",
        "Wait for the time that the line says, and run the same command again.",
        again=True,
    ),
    ExitCode(
        19,
        "partly_done",
        "Of several things some could be done and some not; a line for each says which.",
        "Read the lines, and repeat it for those that are left.",
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
        "A branch, a folder or a lock stands where the lane's worktree should be.",
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
        28,
        "worktree_busy",
        "The lane's worktree is in the midst of something: another worker, or a merge that was not finished.",
        "Wait for that worker, or finish or abort what the line names; nothing of it was touched.",
        again=True,
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
    ExitCode(32, "declined", "It asked first, and the answer was no.", "Answer y, or add --yes.", again=False),
    ExitCode(
        40,
        "source_refused",
        "The place that tickets are imported from says no: a bad token, or nothing there that it may see.",
        "Correct what the line names: the name, the filter, or the token in its variable.",
        again=False,
    ),
    ExitCode(
        41,
        "source_down",
        "The place that tickets are imported from gives no answer that can be read.",
        "Run the same command again later: it goes on where it stopped.",
        again=True,
    ),
    ExitCode(
        42,
        "source_limited",
        "The place that tickets are imported from has a rate limit, and the import was not to wait for it.",
        "Run the same command again at the time that the line names: it goes on where it stopped.",
        again=True,
    ),
    ExitCode(
        50,
        "damaged",
        "`heartlane db check` found that something is wrong with what the database holds.",
        "Stop the server, and restore a backup: `heartlane db restore FILE`.",
        again=False,
    ),
    ExitCode(
        51,
        "in_use",
        "A server has the database open, and this can't be done beside it.",
        "Stop every server on the database, and run the same command again.",
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


class Problem(NamedTuple):
    """One of several things that are wrong: where (`lanes.2.role`) and what; in which line of which file."""

    path: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = "" if self.file is None else f"{self.file}: " if self.line is None else f"{self.file}:{self.line}: "
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class CommandError(Exception):
    """A command can't go on. The text is one line; `exit_code` one of the table above.

    issues      each problem where there are several, as such or as path and message; a line each before the text
    """

    def __init__(
        self, message: str, exit_code: int = WRONG_INPUT, *, issues: Sequence[Problem | tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.issues = [issue if isinstance(issue, Problem) else Problem(*issue) for issue in issues]


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, be the rest of it right or wrong.

    >>> wants_json(["lanes", "-o", "jsonl"]), wants_json(["work", "--", "agent", "--json"])
    (True, False)
    """
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if "--json" in own or any(word in ("--output=json", "--output=jsonl", "-ojson", "-ojsonl") for word in own):
        return True
    return any(name in ("--output", "-o") and value in ("json", "jsonl") for name, value in pairwise(own))


def explain(error: Exception) -> tuple[str, int] | None:
    """The line and the exit code of an expected error, without any secret; None for one that nobody foresaw."""
    expected = _expected(error)
    if expected is None:
        return None
    message, code = expected
    return _tidy(message), code


def report_lines(error: Exception, *, as_json: bool) -> tuple[Sequence[str], int] | None:
    """What is printed on stderr about an expected error, and the exit code; None for one that nobody foresaw."""
    explained = explain(error)
    if explained is None:
        return None
    message, code = explained
    if as_json:
        return [json.dumps(error_object(error, message, code))], code
    problems = _problems(error)
    told = len(problems) == 1 and problems[0].message in message
    return [*([] if told else map(str, problems)), f"heartlane: {message}"], code


def error_object(error: Exception, message: str, code: int) -> Mapping[str, Any]:
    """An error that was explained, in the shape in which the API answers them, with its `exit_code`."""
    from heartlane.client.errors import ApiError

    name = next(row.name for row in EXIT_CODES if row.code == code)
    body: dict[str, Any] = {"error": message, "code": name.upper(), "exit_code": code}
    if problems := _problems(error):
        body["issues"] = [
            {name: value for name, value in problem._asdict().items() if value is not None} for problem in problems
        ]
    if isinstance(error, ApiError):
        body["code"] = error.code
        if error.retry_after is not None:
            body["retryAfter"] = error.retry_after
        if error.run is not None:
            body["run"] = error.run.model_dump(mode="json")
    return body


def _problems(error: Exception) -> Sequence[Problem]:
    found = (Problem(*issue) for issue in getattr(error, "issues", ()))
    return [problem._replace(path=_tidy(problem.path), message=_tidy(problem.message)) for problem in found]


def _tidy(text: str) -> str:
    """The text on one line, without any secret, and without what a terminal would obey."""
    from heartlane.worker.text import plain

    return " ".join(plain(Redactor().text(text)).split())


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
    from heartlane.client.errors import HeartlaneError

    if isinstance(error, HeartlaneError):
        return _expected_of_the_client(error)
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__  # a timeout has no words of its own
        return what + (f": {error.filename}" if error.filename else ""), UNUSABLE
    return _expected_of_the_server(error)


def _expected_of_the_client(error: HeartlaneError) -> tuple[str, int]:
    import ssl

    from heartlane.client.errors import ApiError, BadAnswer, LaneLost, NotConfigured, Unreachable

    if isinstance(error, ApiError):
        return error.error, CODE_OF[_kind_of(error)]
    kinds = {NotConfigured: "wrong_input", BadAnswer: "not_heartlane", LaneLost: "lane_lost"}
    kind = next((name for known, name in kinds.items() if isinstance(error, known)), "unusable")
    if isinstance(error, Unreachable):
        kind = "server_unreachable"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                kind = "tls_fault"
            cause = cause.__cause__ or cause.__context__
    return str(error), CODE_OF[kind]


def _kind_of(error: ApiError) -> str:
    """What an answer of the server's is called in the table."""
    named = {401: "token_refused", 403: "not_allowed", 404: "not_found", 409: "refused", 429: "busy", 503: "busy"}
    if error.status in named:
        return named[error.status]
    return "unusable" if error.status >= 500 or error.status == 405 else "wrong_input"


def _expected_of_the_server(error: Exception) -> tuple[str, int] | None:
    try:
        from sqlalchemy.exc import DBAPIError

        from heartlane.server.settings import SettingsError
        from heartlane.store.errors import InUse, StoreDamaged, StoreError
        from heartlane.store.tokens import TokenError
    except ModuleNotFoundError:
        return None  # a worker's machine: what raises these isn't here either
    if isinstance(error, SettingsError | TokenError):
        return str(error), WRONG_INPUT
    if isinstance(error, StoreError):
        kinds = {InUse: "in_use", StoreDamaged: "damaged"}
        return str(error), CODE_OF[kinds.get(type(error), "unusable")]
    if isinstance(error, DBAPIError):
        return f"the database can't be used: {error.orig}", UNUSABLE
    return None
