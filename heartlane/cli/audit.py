"""`heartlane audit`: who did what, read, followed and exported."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import LIMIT, All, Api, Limit, ProjectOption, connected
from heartlane.cli.durations import parse_duration
from heartlane.cli.errors import CommandError
from heartlane.cli.output import (
    AsJson,
    Column,
    Format,
    Output,
    Row,
    chosen,
    one_line,
    parse_time,
    short_id,
    show_list,
    since,
    to_json,
)
from heartlane.client import people_calls

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="See who did what.")

FOLLOW_SECONDS: Final = 2.0
"""How often a follower asks."""
LATE_SECONDS: Final = 60.0
"""An entry has the time at which its transaction began, and is seen when that ends: how much later that may be."""
SEEN_MAX: Final = 10_000
"""Entries that a follower remembers, not to show one twice."""

Action = Annotated[
    str | None,
    typer.Option(
        "--action", metavar="NAME", help="Only this: an action (run.paused) or a kind (run).", show_default=False
    ),
]
By = Annotated[
    str | None, typer.Option("--by", metavar="NAME_OR_ID", help="Only what this token did.", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From then on: 2026-01-02T03:04:05Z, or 2h ago.", show_default=False),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Before then, in the same forms.", show_default=False)
]


def _who(entry: Row) -> str:
    name = entry["actor_name"] or entry["actor_kind"]
    return f"{name} (browser)" if entry["actor_kind"] == "session" else str(name)


def _what(entry: Row) -> str:
    name = entry["object_name"] or (short_id(entry["object_id"]) if entry["object_id"] else "")
    return f"{entry['object_type']} {name}".strip()


def _details(entry: Row) -> str:
    return to_json(entry["details"]) if entry["details"] else ""


COLUMNS: Final = (
    Column("when", since("at")),
    Column("who", _who),
    Column("did", "action"),
    Column("to", _what, wide=True),
    Column("from", "address"),
    Column("details", _details, wide=True),
)


@app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    *,
    project: ProjectOption = None,
    action: Action = None,
    by: By = None,
    from_: Since = None,
    until: Until = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is done from now on.")] = False,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List what people did, newest first: who approved, paused or cancelled, who made tokens, who changed settings.

    With --follow the last few come oldest first, then whatever is done, a line each; as JSON with --json.
    """
    if context.invoked_subcommand is not None:
        return
    how = chosen(output, as_json)
    filters: dict[str, Any] = {
        "action": action,
        "actor": by,
        "since": _moment("--since", from_),
        "until": _moment("--until", until),
    }
    with connected() as api:
        project_id = None if project is None else api.project_id(project)
        if follow:
            for entry in _following(api, {**filters, "project_id": project_id}, limit):
                print(to_json(entry) if how is not Format.TABLE else _line(entry), flush=True)
        rows = api.rows(people_calls.audit(project_id=project_id, **filters), None if everything else limit)
        show_list("entries", rows, COLUMNS, how, empty="Nothing was done yet.", next_cursor=lambda: rows.next_cursor)


@app.command()
def export(
    *,
    project: ProjectOption = None,
    action: Action = None,
    by: By = None,
    from_: Since = None,
    until: Until = None,
) -> None:
    """Print every entry as a line of JSON, oldest first, for keeping elsewhere."""
    with connected() as api:
        call = people_calls.audit(
            project_id=None if project is None else api.project_id(project),
            action=action,
            actor=by,
            since=_moment("--since", from_),
            until=_moment("--until", until),
            oldest_first=True,
        )
        for entry in api.rows(call):
            print(to_json(entry))


def _following(api: Api, filters: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The last entries, oldest first, then those that come. Each once, also where it was seen late."""
    first = list(api.rows(people_calls.audit(**filters), limit))
    seen = deque((entry["id"] for entry in first), maxlen=SEEN_MAX)
    newest = max((entry["at"] for entry in first), default=None)
    # Those just before the ones that are shown are no news either.
    seen.extend(entry["id"] for entry in _late(api, filters, newest))
    yield from reversed(first)
    while True:
        time.sleep(FOLLOW_SECONDS)
        known = set(seen)
        for entry in _late(api, filters, newest):
            if entry["id"] not in known:
                seen.append(entry["id"])
                newest = max(newest or entry["at"], entry["at"])
                yield entry


def _late(api: Api, filters: dict[str, Any], newest: str | None) -> list[dict[str, Any]]:
    """What is there from a little before `newest` on, oldest first."""
    moment = parse_time(newest)
    from_then = {} if moment is None else {"since": moment - timedelta(seconds=LATE_SECONDS)}
    return list(api.rows(people_calls.audit(**{**filters, **from_then}, oldest_first=True)))


def _line(entry: Row) -> str:
    parts = [entry["at"][:19] + "Z", _who(entry), entry["action"], _what(entry), _details(entry)]
    return "  ".join(one_line(part, 200) for part in parts if part)


def _moment(option: str, text: str | None) -> datetime | None:
    """A moment out of `2026-01-02T03:04:05Z`, `2026-01-02`, or how long ago: `90m`, `2h`, `7d`. Raises CommandError."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        ago = parse_duration(option, text.strip().removesuffix("ago").strip())
        return datetime.now(UTC) - ago
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if not 1970 < moment.year < 3000:
        raise CommandError(f"{option} must lie in the years 1971 to 2999")
    return moment.astimezone(UTC)
