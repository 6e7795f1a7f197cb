"""`heartlane webhooks`: where a project's news goes, and how that went."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, Final, cast, get_args

import typer

from heartlane.cli.api import LIMIT, All, Api, Limit, ProjectOption, connected
from heartlane.cli.errors import UNUSABLE, CommandError
from heartlane.cli.output import (
    AsJson,
    Column,
    Format,
    Output,
    Row,
    Yes,
    chosen,
    confirm,
    note,
    short_id,
    show_change,
    show_list,
    show_one,
    since,
)
from heartlane.client import news_calls
from heartlane.client.call import KEEP, Call
from heartlane.wire.news import ChoiceName, DeliveryStateName, FormatName

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Send a project's news to Slack, Discord or a service of your own.",
)

TEST_SECONDS: Final = 30.0
"""How long `test` waits for what comes of it; an attempt takes half of that at most."""
POLL_SECONDS: Final = 0.2

_STYLES: Final = {"delivered": "green", "pending": "yellow", "failed": "bold red", "dropped": "dim"}


def _last(field: str) -> Any:
    return lambda row: row["attempts"][-1][field] if row["attempts"] else None


def _status(row: Row) -> str:
    if row["enabled"]:
        return f"failing ({row['failures']})" if row["failures"] else "on"
    return f"off ({row['disabled_reason']})"


HOOKS: Final = (
    Column("ID", lambda row: short_id(row["id"])),
    Column("NAME", "name"),
    Column("FORMAT", "format"),
    Column("STATUS", _status),
    Column("EVENTS", lambda row: ", ".join(row["events"])),
    Column("URL", "url", wide=True),
)
HOOK: Final = (
    Column("id", "id"),
    Column("name", "name"),
    Column("url", "url"),
    Column("format", "format"),
    Column("events", lambda row: ", ".join(row["events"])),
    Column("status", _status),
    Column("failing since", since("failing_since")),
    Column("old secret until", since("old_secret_until")),
    Column("created", since("created_at")),
)
DELIVERIES: Final = (
    Column("ID", lambda row: short_id(row["id"])),
    Column("TYPE", "type"),
    Column("STATE", "state", style=_STYLES),
    Column("CREATED", since("created_at")),
    Column("TRIED", lambda row: len(row["attempts"]), right=True),
    Column("STATUS", _last("status"), right=True),
    Column("MS", _last("milliseconds"), right=True),
    Column("NEXT", since("next_attempt_at")),
    Column("ERROR", lambda row: _last("error")(row) or _last("answer")(row), wide=True),
)
DELIVERY: Final = (
    Column("id", "id"),
    Column("type", "type"),
    Column("state", "state", style=_STYLES),
    Column("attempts", lambda row: len(row["attempts"])),
    Column("status", _last("status")),
    Column("milliseconds", _last("milliseconds")),
    Column("error", _last("error")),
    Column("answer", _last("answer")),
    Column("next", since("next_attempt_at")),
)

Hook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id, a part of it, or its name.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", "-e", metavar="TYPE", help="What it hears of, such as run.failed or notice.*; may repeat."),
]
Url = Annotated[str, typer.Argument(metavar="URL", help="Where it goes; - reads it from standard input.")]


@app.command("list")
def list_webhooks(
    *,
    project: ProjectOption = None,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """The webhooks of a project."""
    with connected() as api:
        rows = api.rows(news_calls.webhooks(api.only_project_id(project)), None if everything else limit)
        show_list(
            "webhooks",
            rows,
            HOOKS,
            chosen(output, as_json),
            empty="There are no webhooks.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def create(
    url: Url,
    *,
    project: ProjectOption = None,
    event: Events = None,
    format: Annotated[FormatName, typer.Option("--format", help="What the receiver takes.")] = "standard",
    name: Annotated[str | None, typer.Option("--name", help="What to call it.", show_default=False)] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Send news to an address from now on. Prints the secret to verify signatures with: it is not shown again."""
    with connected() as api:
        made = news_calls.create_webhook(
            api.only_project_id(project),
            _address(url),
            events=_choices(event),
            format=format,
            name=name,
        )
        _with_secret(api, made, chosen(output, as_json))


@app.command()
def show(
    webhook: Hook, *, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """One webhook."""
    with connected() as api:
        call = news_calls.read_webhook(*_found(api, project, webhook))
        show_one("webhook", api.ask(call), HOOK, chosen(output, as_json))


@app.command()
def change(
    webhook: Hook,
    *,
    project: ProjectOption = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Another address; - reads it from standard input.", show_default=False)
    ] = None,
    event: Events = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call it.", show_default=False)] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Change what is named; the rest stays."""
    with connected() as api:
        call = news_calls.patch_webhook(
            *_found(api, project, webhook),
            url=KEEP if url is None else _address(url),
            events=_choices(event) or KEEP,
            name=KEEP if name is None else name,
        )
        show_one("webhook", api.ask(call), HOOK, chosen(output, as_json))


@app.command()
def disable(
    webhook: Hook,
    *,
    project: ProjectOption = None,
    yes: Yes = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Send nothing to it any more. What waits for it is dropped."""
    with connected() as api:
        found = _found(api, project, webhook)
        confirm(f"Disable {webhook}, and drop what waits for it?", yes=yes)
        answer = api.ask(news_calls.patch_webhook(*found, enabled=False))
        show_change("webhook", answer, "Disabled.", chosen(output, as_json))


@app.command()
def enable(
    webhook: Hook, *, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """Send to it again from now on."""
    with connected() as api:
        answer = api.ask(news_calls.patch_webhook(*_found(api, project, webhook), enabled=True))
        show_change("webhook", answer, "Enabled.", chosen(output, as_json))


@app.command()
def delete(
    webhook: Hook,
    *,
    project: ProjectOption = None,
    yes: Yes = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Delete it with its log."""
    with connected() as api:
        found = _found(api, project, webhook)
        confirm(f"Delete {webhook} with its log, and drop what waits for it?", yes=yes)
        answer = api.ask(news_calls.delete_webhook(*found))
        show_change("webhook", answer, "Deleted.", chosen(output, as_json))


@app.command()
def rotate(
    webhook: Hook,
    *,
    project: ProjectOption = None,
    overlap: Annotated[
        int, typer.Option("--overlap-seconds", min=0, help="How long it signs with the old secret, too.")
    ] = 86_400,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Sign with a new secret, which is printed, and for a while with the old one, too."""
    with connected() as api:
        call = news_calls.rotate_webhook_secret(*_found(api, project, webhook), overlap_seconds=overlap)
        _with_secret(api, call, chosen(output, as_json))


@app.command("test")
def send_test(
    webhook: Hook, *, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """Send a test, and say what came of it. The exit code is 1 when it didn't arrive."""
    with connected() as api:
        found = _found(api, project, webhook)
        sent = api.ask(news_calls.test_webhook(*found))
        _follow(api, found, sent, chosen(output, as_json))


@app.command()
def deliveries(
    webhook: Hook,
    *,
    project: ProjectOption = None,
    state: Annotated[
        DeliveryStateName | None, typer.Option("--state", help="Only in this state.", show_default=False)
    ] = None,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """What was sent and will be, newest first, and how it went."""
    with connected() as api:
        call = news_calls.deliveries(*_found(api, project, webhook), state=state)
        rows = api.rows(call, None if everything else limit)
        show_list(
            "deliveries",
            rows,
            DELIVERIES,
            chosen(output, as_json),
            empty="Nothing was sent to it.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def resend(
    webhook: Hook,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, or a part of it.")],
    *,
    project: ProjectOption = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Send one delivery again, and say what came of it. The exit code is 1 when it didn't arrive."""
    with connected() as api:
        found = _found(api, project, webhook)
        delivery_id = api.delivery_id(*found, delivery)
        before = api.ask(news_calls.read_delivery(*found, delivery_id))
        api.ask(news_calls.resend_delivery(*found, delivery_id))
        _follow(api, found, before, chosen(output, as_json))


def _found(api: Api, project: str | None, webhook: str) -> tuple[str, str]:
    project_id = api.only_project_id(project)
    return project_id, api.webhook_id(project_id, webhook)


def _address(given: str) -> str:
    """What was typed, or the first line of standard input: an address that is a secret is kept off command lines."""
    if given != "-":
        return given
    line = sys.stdin.readline().strip()
    if not line:
        raise CommandError("standard input has no address")
    return line


def _choices(events: list[str] | None) -> list[ChoiceName]:
    """The types that were typed. Raises CommandError for one that isn't there."""
    known = get_args(ChoiceName)
    for event in events or ():
        if event not in known:
            raise CommandError(f"--event must be one of {', '.join(known)}, not {event!r}")
    return cast("list[ChoiceName]", events or [])


def _with_secret(api: Api, call: Call[Any], how: Format) -> None:
    answer = api.ask(call)
    show_one("webhook", answer, HOOK, how)
    if how is Format.TABLE and answer["secret"] is not None:
        print(f"secret: {answer['secret']}")
        note("Keep the secret: it is not shown again. Receivers verify signatures with it.")


def _follow(api: Api, found: tuple[str, str], sent: Row, how: Format) -> None:
    """Wait for the next attempt, show what came of it, and fail when it did."""
    delivery, tried = sent["delivery"], len(sent["delivery"]["attempts"])
    until = time.monotonic() + TEST_SECONDS
    call = news_calls.read_delivery(*found, delivery["id"])
    answer = api.ask(call)
    while len(answer["delivery"]["attempts"]) <= tried and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        answer = api.ask(call)
    show_one("delivery", answer, DELIVERY, how)
    attempts = answer["delivery"]["attempts"]
    if len(attempts) <= tried:
        raise CommandError(f"it was not sent within {TEST_SECONDS:.0f} s", UNUSABLE)
    if attempts[-1]["error"] is not None:
        raise CommandError(f"it didn't arrive: {attempts[-1]['error']}", UNUSABLE)
