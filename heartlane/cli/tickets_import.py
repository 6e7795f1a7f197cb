"""`heartlane tickets import`: tickets from GitHub, GitLab, Linear, Jira or a file, through the server's public API.

Tokens of the sources come from the environment alone, and are masked in whatever is printed. What happens is said on
stderr; stdout has the figures, or with `--json` one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartlane.cli.errors import CODE_OF, CommandError

if TYPE_CHECKING:
    from heartlane.sources.http import Patience
    from heartlane.sources.model import Source
    from heartlane.sources.roles import RoleRules

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Import tickets. The same import again brings them up to date, and makes none twice.",
)

Opened = Callable[["Patience"], tuple[AbstractAsyncContextManager[Any], "Source"]]
"""What opens a source: its connection, and the source itself."""

Project = Annotated[str, typer.Option("--project", metavar="ID_OR_NAME", help="The project that gets the tickets.")]
Label = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME", help="Only tickets with this label; may be repeated.")
]
State = Annotated[
    str,
    typer.Option(
        "--state", metavar="STATE", help="open, closed or all: which become tickets. Known ones follow in any case."
    ),
]
Milestone = Annotated[
    str | None, typer.Option("--milestone", metavar="NAME", help="Only tickets of this milestone there.")
]
ToMilestone = Annotated[
    str | None, typer.Option("--to-milestone", metavar="ID_OR_NAME", help="The milestone here that new tickets get.")
]
RoleLabel = Annotated[
    list[str] | None,
    typer.Option(
        "--role-label", metavar="ROLE=LABEL", help="A label that asks for a role, * for anything; repeatable."
    ),
]
RolesFile = Annotated[
    Path | None,
    typer.Option("--roles-file", metavar="FILE", help='The same as JSON: {"backend": ["area/backend", "api*"]}.'),
]
ApiUrl = Annotated[
    str | None, typer.Option("--api-url", metavar="URL", help="The API's address, of your own instance.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be made, and make nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="End (exit code 42) at a rate limit instead of waiting for it.")
]
FromStart = Annotated[
    bool, typer.Option("--from-start", help="Look at every ticket again, not only at what changed since the last time.")
]


@dataclass(frozen=True)
class Options:
    """What all imports have in common."""

    project: str
    state: str = "open"
    to_milestone: str | None = None
    role_labels: list[str] = field(default_factory=list)
    roles_file: Path | None = None
    dry_run: bool = False
    as_json: bool = False
    wait: bool = True
    from_start: bool = False


@app.command()
def github(
    repository: Annotated[str, typer.Argument(metavar="OWNER/REPO", help="The repository.")],
    *,
    project: Project,
    label: Label = None,
    state: State = "open",
    milestone: Milestone = None,
    to_milestone: ToMilestone = None,
    role_label: RoleLabel = None,
    roles_file: RolesFile = None,
    api_url: ApiUrl = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    no_wait: NoWait = False,
    from_start: FromStart = False,
) -> None:
    """Import issues of GitHub. The token is GITHUB_TOKEN (or GH_TOKEN); public repositories need none."""
    from heartlane.sources.github import GitHub, github_api

    token = _secret("GITHUB_TOKEN") or _secret("GH_TOKEN")

    def opened(patience: Patience) -> tuple[AbstractAsyncContextManager[Any], Source]:
        api = github_api(api_url, token, patience)
        return api, GitHub(api, repository, labels=label or (), milestone=milestone)

    options = Options(
        project, state, to_milestone, role_label or [], roles_file, dry_run, as_json, not no_wait, from_start
    )
    _import(opened, options, {"api_url": api_url, "labels": label, "milestone": milestone})


@app.command()
def gitlab(
    group_project: Annotated[
        str, typer.Argument(metavar="GROUP/PROJECT", help="The project at GitLab, or its number.")
    ],
    *,
    project: Project,
    label: Label = None,
    state: State = "open",
    milestone: Milestone = None,
    to_milestone: ToMilestone = None,
    role_label: RoleLabel = None,
    roles_file: RolesFile = None,
    api_url: ApiUrl = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    no_wait: NoWait = False,
    from_start: FromStart = False,
) -> None:
    """Import issues of GitLab. The token is GITLAB_TOKEN; public projects need none."""
    from heartlane.sources.gitlab import GitLab, gitlab_api

    token = _secret("GITLAB_TOKEN")

    def opened(patience: Patience) -> tuple[AbstractAsyncContextManager[Any], Source]:
        api = gitlab_api(api_url, token, patience)
        return api, GitLab(api, group_project, labels=label or (), milestone=milestone)

    options = Options(
        project, state, to_milestone, role_label or [], roles_file, dry_run, as_json, not no_wait, from_start
    )
    _import(opened, options, {"api_url": api_url, "labels": label, "milestone": milestone})


@app.command()
def linear(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team's key, as in ENG-12.")],
    *,
    project: Project,
    label: Label = None,
    state: State = "open",
    milestone: Milestone = None,
    to_milestone: ToMilestone = None,
    role_label: RoleLabel = None,
    roles_file: RolesFile = None,
    api_url: ApiUrl = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    no_wait: NoWait = False,
    from_start: FromStart = False,
) -> None:
    """Import issues of a Linear team. The key is LINEAR_API_KEY."""
    from heartlane.sources.linear import Linear, linear_api

    key = _secret("LINEAR_API_KEY")

    def opened(patience: Patience) -> tuple[AbstractAsyncContextManager[Any], Source]:
        api = linear_api(api_url, key, patience)
        return api, Linear(api, team, labels=label or (), milestone=milestone)

    options = Options(
        project, state, to_milestone, role_label or [], roles_file, dry_run, as_json, not no_wait, from_start
    )
    _import(opened, options, {"api_url": api_url, "labels": label, "milestone": milestone})


@app.command()
def jira(
    jira_project: Annotated[str, typer.Argument(metavar="PROJECT", help="The project's key, as in SHOP-12.")],
    *,
    project: Project,
    jql: Annotated[
        str | None, typer.Option("--jql", metavar="JQL", help="What else they have to be: labels = agent AND …")
    ] = None,
    state: State = "open",
    to_milestone: ToMilestone = None,
    role_label: RoleLabel = None,
    roles_file: RolesFile = None,
    api_url: Annotated[
        str | None, typer.Option("--api-url", metavar="URL", help="Your site. Default: JIRA_URL.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    no_wait: NoWait = False,
    from_start: FromStart = False,
) -> None:
    """Import issues of Jira Cloud. The token is JIRA_API_TOKEN with JIRA_EMAIL; labels and components say the roles."""
    from heartlane.sources.jira import Jira, jira_api

    url, email, token = api_url or os.environ.get("JIRA_URL"), _secret("JIRA_EMAIL"), _secret("JIRA_API_TOKEN")

    def opened(patience: Patience) -> tuple[AbstractAsyncContextManager[Any], Source]:
        api = jira_api(url, email, token, patience)
        return api, Jira(api, jira_project, jql=jql)

    options = Options(
        project, state, to_milestone, role_label or [], roles_file, dry_run, as_json, not no_wait, from_start
    )
    _import(opened, options, {"api_url": url, "jql": jql})


@app.command()
def file(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .json or .jsonl file.")],
    *,
    project: Project,
    state: State = "all",
    to_milestone: ToMilestone = None,
    role_label: RoleLabel = None,
    roles_file: RolesFile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import a file. It is checked whole before anything is sent: all problems at once, each with its line."""
    from heartlane.sources.errors import BadFile
    from heartlane.sources.files import File

    try:
        found = File(path)
    except BadFile as error:
        raise CommandError(str(error), issues=error.problems) from None
    options = Options(project, state, to_milestone, role_label or [], roles_file, dry_run, as_json, from_start=True)
    _import(lambda patience: (nullcontext(), found), options, {})


# --- what all of them do ------------------------------------------------------------------------------------------


def _import(opened: Opened, options: Options, filters: Mapping[str, Any]) -> None:
    import asyncio

    from heartlane.sources.errors import SourceError

    rules = _rules(options)
    if options.state not in ("open", "closed", "all"):
        raise CommandError(f"--state must be open, closed or all, not {options.state!r}")
    try:
        asyncio.run(_walk(opened, options, filters, rules))
    except SourceError as error:
        raise CommandError(_how_it_stands(error), _code_of(error)) from None


async def _walk(opened: Opened, options: Options, filters: Mapping[str, Any], rules: RoleRules) -> None:
    from heartlane.cli.tickets_sink import DrySink, ServerSink, heartlane_client, milestone_of, project_of
    from heartlane.sources.http import Patience
    from heartlane.sources.importing import Progress, Wanted, run_import
    from heartlane.sources.journal import Journal, Kept
    from heartlane.worker.places import places

    connection, source = opened(Patience(_say, wait=options.wait))
    async with heartlane_client() as client, connection:
        project_id = await project_of(client, options.project)
        milestone_id = await milestone_of(client, project_id, options.to_milestone)
        what = {
            **filters,
            "server": client.url,
            "project_id": project_id,
            "source": source.name,
            "subject": source.subject,
            "state": options.state,
            "milestone_id": milestone_id,
            "roles": rules.as_object(),
        }
        journal = Journal(places().state / "imports", what)
        kept = None if options.from_start or options.dry_run else journal.read()
        progress = Progress(source.start() if kept is None else kept.cursor)
        if kept is not None:
            _say(_where_it_begins(kept))

        async def keep(progress: Progress) -> None:
            if options.dry_run or source.name == "file":
                return
            before = 0 if kept is None or kept.finished else kept.read
            journal.write(Kept(progress.cursor, progress.finished, before + progress.read))
            if not progress.finished:
                _say(f"{progress.read} read, {_counted(progress.outcomes)}.")

        wanted = Wanted(rules, options.state, milestone_id)  # type: ignore[arg-type]  # checked before
        sink = DrySink(client, project_id) if options.dry_run else ServerSink(client, project_id)
        try:
            await run_import(source, sink, wanted, progress, keep)
        finally:
            _print(source, progress, sink.shown, options)


def _print(source: Source, progress: Any, shown: list[dict[str, Any]], options: Options) -> None:
    from heartlane.worker.text import plain

    if options.as_json:
        result = {"source": source.name, "subject": source.subject, "dry_run": options.dry_run, **progress.as_object()}
        print(json.dumps(result | ({"tickets": shown} if options.dry_run else {}), indent=2, ensure_ascii=True))
        return
    for ticket in shown:
        roles = ", ".join(ticket["roles"])
        print(plain(f"{ticket['outcome']}  {ticket['ref']}  {roles}  {ticket['title']}"))
    for note in progress.notes:
        _say(note)
    if progress.notes_left_out:
        _say(f"and {progress.notes_left_out} more of these")
    if progress.finished or progress.read:
        left_out = f"; {progress.left_out} pull requests left out" if progress.left_out else ""
        if options.dry_run:
            print(
                f"{source.subject}: {progress.read} read, {_would(progress.outcomes)}{left_out}. Nothing was changed."
            )
        else:
            print(f"{source.subject}: {progress.read} read, {_counted(progress.outcomes)}{left_out}.")


def _counted(outcomes: Mapping[str, int]) -> str:
    words = {"created": "made", "updated": "changed", "unchanged": "as they were", "skipped": "not wanted"}
    said = [f"{outcomes[name]} {word}" for name, word in words.items() if outcomes.get(name)]
    return ", ".join(said) or "none of them new"


def _would(outcomes: Mapping[str, int]) -> str:
    words = {"created": "would be made", "known": "are known and would be brought up to date", "skipped": "not wanted"}
    said = [f"{outcomes[name]} {word}" for name, word in words.items() if outcomes.get(name)]
    return ", ".join(said) or "none of them new"


def _where_it_begins(kept: Any) -> str:
    if not kept.finished:
        return f"Going on where the last import stopped, after {kept.read} read. (--from-start begins anew.)"
    return "Looking at what changed since the last import. (--from-start looks at everything.)"


def _how_it_stands(error: Exception) -> str:
    from heartlane.sources.errors import SourceRefused

    if isinstance(error, SourceRefused):
        return str(error)
    return f"{error} What was read is imported; the same command goes on from there."


def _code_of(error: Exception) -> int:
    from heartlane.sources.errors import SourceDown, SourceLimited

    if isinstance(error, SourceLimited):
        return CODE_OF["source_limited"]
    return CODE_OF["source_down" if isinstance(error, SourceDown) else "source_refused"]


def _rules(options: Options) -> RoleRules:
    from heartlane.sources.roles import BadRule, RoleRules, load_rules, parse_rule

    try:
        rules = tuple(parse_rule(text) for text in options.role_labels)
    except BadRule as error:
        raise CommandError(f"--role-label {error}") from None
    if options.roles_file is None:
        return RoleRules(rules)
    try:
        return RoleRules(rules + load_rules(options.roles_file.read_text("utf-8")).rules)
    except BadRule as error:
        raise CommandError(f"--roles-file {options.roles_file} {error}") from None
    except UnicodeDecodeError:
        raise CommandError(f"--roles-file {options.roles_file} is not UTF-8") from None


def _secret(name: str) -> str | None:
    """A token out of the environment. Raises CommandError for one that no header can carry, without repeating it."""
    value = os.environ.get(name, "").strip()
    if value and not (value.isascii() and value.isprintable() and " " not in value):
        raise CommandError(f"{name} has characters that no token has; is it cut off, or two in one?")
    return value or None


def _say(text: str) -> None:
    """A line on stderr, harmless to a terminal, without any secret."""
    from heartlane.wire.secrets import Redactor
    from heartlane.worker.text import plain

    print(Redactor().text(plain(text)), file=sys.stderr, flush=True)
