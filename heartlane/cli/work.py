"""`heartlane work`: claim lanes, and run an agent on each.

Parsed by the standard library: what a worker costs beside its agents is told in megabytes, and typer takes some.
"""

from __future__ import annotations

import os
import re
import signal
from argparse import SUPPRESS, Namespace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from heartlane.cli.durations import parse_duration
from heartlane.cli.errors import CODE_OF, CommandError
from heartlane.cli.in_a_lane import Parser, parser
from heartlane.lanes import bounds
from heartlane.lanes.run import Role
from heartlane.worker.command_line import names_placeholder
from heartlane.worker.limits import FIRST_OUTPUT_SECONDS, STALL_SECONDS, Limits
from heartlane.worker.options import PARALLEL_MAX, WorkOptions

if TYPE_CHECKING:
    from heartlane.worker.fleet import Fleet
    from heartlane.worker.status import Status

EXAMPLES: Final = """\
examples:
  heartlane work --role backend -- claude -p --output-format stream-json --verbose "{prompt}"
  heartlane work --agent codex --parallel 3 --worktree ~/src/app --push
  heartlane work --once -- ./do-it.sh "{prompt_file}"

In the command stand {prompt}, {prompt_file}, {title}, {lane_key}, {role}, {run_id}, {attempt} and {branch}; it is
started as it is, without a shell. The same is in its environment as HEARTLANE_TITLE and so on.
"""
LABEL: Final = re.compile(r"([^=]+)=(.*)", re.DOTALL)
MUTE: Final = (
    "this starts {agent} without the options that make it print what can be read: its tool calls, its tokens and its "
    "own result stay unknown (`--agent {agent}` without a command has a recipe)"
)
FOREVER: Final = "forever"
AGENT_DEFAULT: Final = "found from the command, else from what it prints"


def options() -> Parser:
    """The parser of all flags."""
    flags = parser("work", "Claim lanes, and run a command on each, beside it as its telemetry sidecar.", EXAMPLES)
    flags.add_argument("command", nargs="*", metavar="COMMAND", help="behind --: what works a lane")

    server = flags.add_argument_group("the server")
    server.add_argument("--url", metavar="URL", help="where it is; also HEARTLANE_URL")
    server.add_argument("--token", metavar="TOKEN", help=SUPPRESS)
    server.add_argument(
        "--wait-for-server",
        default="15s",
        metavar="TIME",
        help="how long to try a server that can't be reached at the start; forever: for as long as it takes (15s)",
    )
    server.add_argument("--ca", metavar="FILE", help="authority of the server's certificate, if it is your own")

    lanes = flags.add_argument_group("which lanes")
    roles = ", ".join(Role)
    lanes.add_argument(
        "--role",
        action="append",
        default=[],
        choices=[str(role) for role in Role],
        metavar="ROLE",
        help=f"only lanes of this role; may be given several times ({roles})",
    )
    lanes.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what this worker offers; may be given several times",
    )
    lanes.add_argument("--project", metavar="ID", help="only lanes of this project")
    lanes.add_argument("--parallel", type=int, default=1, metavar="N", help=f"lanes at once (1 to {PARALLEL_MAX}; 1)")
    lanes.add_argument("--once", action="store_true", help="end after one lane")
    lanes.add_argument(
        "--lease",
        type=int,
        default=bounds.LEASE_SECONDS_DEFAULT,
        metavar="SECONDS",
        help="length of a lease; a third of it between two renewals (300)",
    )
    lanes.add_argument("--name", metavar="NAME", help="what the worker is called (this machine's name)")

    agent = flags.add_argument_group("the agent")
    agent.add_argument("--agent", metavar="NAME", help=f"whose output it is: claude, codex, … ({AGENT_DEFAULT})")
    agent.add_argument("--shell", action="store_true", help="COMMAND is one text for /bin/sh; values are quoted for it")
    agent.add_argument("--resume", action="store_true", help="go on in the session of the attempt before, if it can")
    agent.add_argument(
        "--on-pause",
        choices=["freeze", "tell"],
        default="freeze",
        help='what a pause does: hold its processes still, or only set "paused" in its lane file (freeze)',
    )
    agent.add_argument("--linger", default="20s", metavar="TIME", help="how long it may go on after its result (20s)")
    agent.add_argument("--grace", default="10s", metavar="TIME", help="from SIGTERM to SIGKILL (10s)")
    agent.add_argument("--redact", action="append", default=[], metavar="REGEX", help="further secrets to mask")

    ends = flags.add_argument_group("how a lane ends")
    ends.add_argument("--success", metavar="CMD", help="a shell command that must pass before a lane ships")
    ends.add_argument("--success-time", default="30m", metavar="TIME", help="how long that may take (30m)")
    ends.add_argument("--allow-empty", action="store_true", help="ship without any change in the worktree, too")
    ends.add_argument(
        "--on-failure",
        choices=["release", "fail"],
        default="release",
        help="give a failed lane back, counted as a failure, or end it (release)",
    )
    ends.add_argument(
        "--first-output",
        default=f"{FIRST_OUTPUT_SECONDS / 60:.0f}m",
        metavar="TIME",
        help="silence at the start that is told of (5m; 0s: never)",
    )
    ends.add_argument(
        "--stall", default=f"{STALL_SECONDS / 60:.0f}m", metavar="TIME", help="silence that is told of (15m; 0s: never)"
    )
    ends.add_argument("--end-stalled", action="store_true", help="end a silent agent rather than only tell of it")
    ends.add_argument("--max-time", metavar="TIME", help="longest time for one lane")
    ends.add_argument("--max-cost-usd", type=float, metavar="USD", help="most dollars, where the agent says them")
    ends.add_argument("--max-tokens", type=int, metavar="N", help="most tokens, where the agent says them")
    ends.add_argument(
        "--outage",
        default="1h",
        metavar="TIME",
        help="how long an agent stands frozen while the server can't be reached (1h)",
    )

    git = flags.add_argument_group("Git")
    git.add_argument("--worktree", metavar="REPO", help="give each lane a worktree and a branch of this repository")
    git.add_argument("--push", action="store_true", help="push the branch of a lane that ships")
    git.add_argument("--pr", action="store_true", help="and open a pull request, through the gh program")

    flags.add_argument("--state", metavar="FOLDER", help="where the worker keeps its files; also HEARTLANE_STATE")
    flags.add_argument("--plain", action="store_true", help="a line for each happening, on a terminal too")
    return flags


def read_options(given: Namespace) -> WorkOptions:
    """The options, checked. Raises CommandError."""
    labels = {}
    for label in given.label:
        match = LABEL.fullmatch(label)
        if match is None:
            raise CommandError(f"--label must be NAME=VALUE, not {label!r}")
        labels[match[1]] = match[2]
    if not 1 <= given.parallel <= PARALLEL_MAX:
        raise CommandError(f"--parallel must be from 1 to {PARALLEL_MAX}, not {given.parallel}")
    if not bounds.LEASE_SECONDS_MIN <= given.lease <= bounds.LEASE_SECONDS_MAX:
        raise CommandError(
            f"--lease must be from {bounds.LEASE_SECONDS_MIN} to {bounds.LEASE_SECONDS_MAX} seconds, not {given.lease}"
        )
    if not given.command and not given.agent:
        raise CommandError('no command is given: put it behind --, as in: heartlane work -- my-agent "{prompt}"')
    if not given.worktree and names_placeholder(given.command, "branch"):
        raise CommandError("{branch} in the command needs --worktree: without it a lane has no branch of its own")
    if (given.push or given.pr) and not given.worktree:
        raise CommandError("--push and --pr need --worktree: nothing else is a branch of the lane's own")
    if given.name is not None and not 1 <= len(given.name) <= 150:
        raise CommandError("--name must be from 1 to 150 characters long")
    for flag, value in (("--max-cost-usd", given.max_cost_usd), ("--max-tokens", given.max_tokens)):
        if value is not None and not value > 0:
            raise CommandError(f"{flag} must be more than 0, not {value}")
    limits = Limits(
        first_output_seconds=_seconds("--first-output", given.first_output) or None,
        stall_seconds=_seconds("--stall", given.stall) or None,
        end_stalled=given.end_stalled,
        max_seconds=None if given.max_time is None else _seconds("--max-time", given.max_time),
        max_cost_usd=given.max_cost_usd,
        max_tokens=given.max_tokens,
    )
    return WorkOptions(
        command=tuple(given.command),
        agent=given.agent,
        shell=given.shell,
        roles=tuple(given.role),
        labels=labels,
        project_id=given.project,
        lease_seconds=given.lease,
        parallel=given.parallel,
        once=given.once,
        reach_seconds=None
        if given.wait_for_server == FOREVER
        else _seconds("--wait-for-server", given.wait_for_server),
        grace_seconds=_seconds("--grace", given.grace),
        after_result_seconds=_seconds("--linger", given.linger),
        outage_seconds=_seconds("--outage", given.outage),
        limits=limits,
        on_failure=given.on_failure,
        on_pause=given.on_pause,
        allow_empty=given.allow_empty,
        success=given.success,
        success_seconds=_seconds("--success-time", given.success_time),
        resume=given.resume,
        worktree=None if given.worktree is None else Path(given.worktree).expanduser().absolute(),
        push=given.push or given.pr,
        pull_request=given.pr,
        redact=tuple(given.redact),
        name=given.name,
    )


def _seconds(flag: str, text: str) -> float:
    return parse_duration(flag, text).total_seconds()


def main(arguments: list[str]) -> int:
    """Run `heartlane work ARGUMENTS…` until it is told to stop; its exit code."""
    try:
        given = options().parse_args(arguments)
    except SystemExit as ended:  # --help
        return ended.code if isinstance(ended.code, int) else CODE_OF["wrong_input"]
    wanted = read_options(given)
    # What it takes from here on is loaded late: `--help` and a wrong flag are answered at once.
    from heartlane.client.errors import NotConfigured
    from heartlane.client.settings import server_token, server_url, tls_context
    from heartlane.worker.agents import BadAgent, UnknownAgent, agent
    from heartlane.worker.agents.detect import detect, program_of
    from heartlane.worker.exchange import Exchange
    from heartlane.worker.fleet import Fleet, check_program
    from heartlane.worker.leftovers import take_care
    from heartlane.worker.places import make, places
    from heartlane.worker.redact import BadPattern, Redactor
    from heartlane.worker.repository import Repository
    from heartlane.worker.status import Status

    try:
        if wanted.agent is not None:
            agent(wanted.agent)
        Redactor(patterns=wanted.redact)
        url = server_url(given.url)
        token = server_token(given.token, url)
        verify = tls_context(given.ca or True)
    except (UnknownAgent, BadAgent, BadPattern, NotConfigured) as error:
        raise CommandError(str(error)) from None
    repository = None if wanted.worktree is None else Repository.open(wanted.worktree)
    check_program(wanted)
    where = places(None if given.state is None else Path(given.state))
    make(where)
    with Status(live=False if given.plain else None) as screen, Exchange(url, token, verify) as exchange:
        mute = program_of(wanted.command) if wanted.agent is None and detect(wanted.command) is None else None
        if mute is not None:
            screen.say(MUTE.format(agent=mute))
        cared = take_care(exchange, where, screen, repository)

        def later() -> None:
            with exchange.another() as own:
                take_care(own, where, screen, repository)

        secrets = (token.reveal(),)
        fleet = Fleet(exchange, wanted, where, screen, secret_values=secrets, on_reached=None if cared else later)
        told: list[int] = []
        _hear_signals(fleet, screen, told)
        last = fleet.run()
    if told:
        return 128 + told[0]
    if wanted.once and last is not None and last.kind != "shipped":
        if last.kind in ("lost", "abandoned"):
            return CODE_OF["lane_lost"]
        return CODE_OF["not_logged_in"] if last.reason == "auth" else CODE_OF["lane_failed"]
    return 0


def _hear_signals(fleet: Fleet, screen: Status, told: list[int]) -> None:
    """SIGTERM, Ctrl-C and the end of its terminal end the worker in good order, a second Ctrl-C at once; SIGUSR1 lets
    it finish and end. `told` gets the signals that ended it."""

    def on_end(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if len(told) > 1 and number == signal.SIGINT:
            screen.leave()
            # The guards see that we are gone and kill what is left; the leases run out.
            os._exit(CODE_OF["interrupted"])
        fleet.stop()

    signal.signal(signal.SIGTERM, on_end)
    signal.signal(signal.SIGINT, on_end)
    signal.signal(signal.SIGUSR1, lambda number, frame: fleet.drain())
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, on_end)
