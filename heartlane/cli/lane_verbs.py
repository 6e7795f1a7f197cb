"""`heartlane lane VERB`: look at lanes, and steer them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import LIMIT, All, Api, Json, Limit, connected
from heartlane.cli.complete import event_types, lane_keys
from heartlane.cli.durations import parse_duration
from heartlane.cli.errors import CODE_OF
from heartlane.cli.fields import EVENT_COLUMNS, LANE_LINES
from heartlane.cli.lanes import checked
from heartlane.cli.output import (
    AsJson,
    Format,
    Output,
    Yes,
    chosen,
    confirm,
    many_lines,
    note,
    one_line,
    short_id,
    show_list,
    show_one,
)
from heartlane.cli.results import Result, show_results, tried
from heartlane.client import calls
from heartlane.client.call import Call
from heartlane.lanes.run import FINISHED_STATES, HELD_STATES, EventType, State

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Look at lanes, and steer them. Without a verb, from within a lane: show what it is.",
)

ONE: Final = "A lane's key, its id, or the beginning or end of its id."
Lane = Annotated[str, typer.Argument(metavar="LANE", help=ONE, autocompletion=lane_keys)]
Lanes = Annotated[list[str], typer.Argument(metavar="LANE...", help=ONE, autocompletion=lane_keys)]
UNFINISHED: Final = frozenset(str(state) for state in State) - FINISHED_STATES


@app.command()
def show(lane: Lane, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Show all there is to know about a lane, with its prompt and its tickets."""
    how = chosen(output, as_json)
    with connected() as api:
        answer = api.ask(calls.read_run(api.run_id(lane, fits=UNFINISHED)))
    show_one("run", answer, LANE_LINES, how)
    if how is Format.TABLE:
        run = answer["run"]
        for ticket in run["tickets"]:
            print(f"ticket:       {one_line(ticket['title'])} ({short_id(ticket['id'])}, {ticket['stage']})")
        if run["prompt"]:
            print(f"\n{many_lines(run['prompt'])}")


@app.command()
def events(
    lane: Lane,
    *,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", metavar="TYPE", help="Of this type; may be repeated.", autocompletion=event_types),
    ] = None,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", min=0, help="Only those with a higher number.")] = 0,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List the events of a lane's log, oldest first."""
    types = checked("--type", kinds or [], EventType)
    with connected() as api:
        run_id = api.run_id(lane, fits=UNFINISHED)
        rows = api.rows(calls.events(run_id, after=after, type=types), None if everything else limit)
        show_list(
            "events",
            rows,
            EVENT_COLUMNS,
            chosen(output, as_json),
            empty="There are no such events.",
            next_cursor=lambda: rows.next_cursor,
            beside=lambda: rows.beside,
        )


@app.command()
def logs(
    lane: Lane,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the lane ends.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Every event, not only what was logged.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Begin with the last N events.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-T", help="With the time before each line.")] = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Print what a lane has logged. With -f the exit code says how it ended: 0 shipped, 31 failed.

    As JSON or JSONL it prints events, a line each.
    """
    from heartlane.cli.logs import Printer, follow_log, print_log

    with connected() as api:
        run = api.find_run(lane, fits=UNFINISHED)
        after = 0 if tail is None else max(0, int(run["event_count"]) - tail)
        printer = Printer(everything=events, timestamps=timestamps, as_json=chosen(output, as_json) is not Format.TABLE)
        if not follow:
            print_log(api, run["id"], printer, after)
            return
        ended = follow_log(api, run["id"], printer, after)
    note(f"heartlane: {one_line(run['lane_key'], 100)} {ended}")
    raise typer.Exit(0 if ended == "shipped" else CODE_OF["lane_failed"])


# --- steering -----------------------------------------------------------------------------------------------------


@app.command()
def pause(lanes: Lanes, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Ask the workers of lanes to stand still. They keep their lanes, and hear of it with their next report."""
    _steer(
        lanes,
        "paused; {holder} hears of it with its next report",
        calls.pause_run,
        HELD_STATES - {"paused"},
        chosen(output, as_json),
    )


@app.command()
def resume(lanes: Lanes, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Let paused lanes go on."""
    _steer(
        lanes,
        "goes on; {holder} hears of it with its next report",
        calls.resume_run,
        {"paused"},
        chosen(output, as_json),
    )


@app.command()
def retry(lanes: Lanes, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Put failed lanes back into the queue, with their failures at 0."""
    _steer(lanes, "queued again", calls.retry_run, {"failed"}, chosen(output, as_json))


@app.command()
def release(
    lanes: Lanes,
    *,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the lane's log.")] = None,
    retry_after: Annotated[
        str | None,
        typer.Option("--retry-after", metavar="TIME", help="Claimable again only after this time, such as 15m."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Count it as a failure of the lane.")] = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Take lanes from their workers, so that others may claim them. Asks first."""
    seconds = None if retry_after is None else parse_duration("--retry-after", retry_after).total_seconds()
    _steer(
        lanes,
        "released: {holder} has lost it",
        lambda run_id: calls.release_run(run_id, reason=reason, retry_after=seconds, failed=failed),
        HELD_STATES,
        chosen(output, as_json),
        ask=None if yes else "Take {lanes} from the worker? What it has done and not told is lost to the next one.",
    )


@app.command()
def cancel(lanes: Lanes, *, yes: Yes = False, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """End lanes as failed; their workers are told to stop. Asks first."""
    _steer(
        lanes,
        "cancelled: it has failed, and {holder} is told to stop",
        calls.cancel_run,
        UNFINISHED,
        chosen(output, as_json),
        ask=None
        if yes
        else "Cancel {lanes}? The lane ends as failed, and its worker is told to stop and kills its agent.",
    )


def _steer(
    lanes: Sequence[str],
    done: str,
    build: Callable[[str], Call[Any]],
    fits: Collection[str],
    how: Format,
    *,
    ask: str | None = None,
) -> None:
    """Do the same to each of the lanes, and print what came of it.

    done    what a lane is then; {holder} is who held it
    fits    states in which it makes sense
    ask     what is asked before, where somebody has to say yes
    """
    with connected() as api:
        found = [tried(lane, lambda: api.find_run(lane, fits=fits)) for lane in lanes]  # noqa: B023 - called at once
        runs = [result.thing for result in found if result.thing is not None]
        if ask is not None and runs:
            confirm(ask.format(lanes=", ".join(map(_named, runs))), yes=False)
        holders = {run["id"]: run["worker_id"] for run in runs if run["state"] in HELD_STATES}

        def line(run: Json) -> str:
            holder = holders.get(run["id"])
            told = done.format(holder="its worker" if holder is None else one_line(holder, 60))
            return f"{one_line(run['lane_key'], 60)} ({short_id(run['id'])}): {told}"

        show_results((_done(api, result, build) for result in found), "run", line, how)


def _done(api: Api, found: Result, build: Callable[[str], Call[Any]]) -> Result:
    run = found.thing
    return found if run is None else tried(found.asked, lambda: dict(api.ask(build(run["id"]))["run"]))


def _named(run: Json) -> str:
    holder = f", held by {one_line(run['worker_id'], 60)}" if run["state"] in HELD_STATES else ""
    return f"{one_line(run['lane_key'], 60)} ({short_id(run['id'])}, {run['state']}{holder})"
