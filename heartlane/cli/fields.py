"""What lanes, plans and the rest look like in tables: their columns, and their lines when one is shown alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from heartlane.cli.output import STATE_STYLES, Column, Row, ago, one_line, parse_time, short_id, since, span
from heartlane.lanes.run import FINISHED_STATES

ATTENTION: Final[Mapping[str, str]] = {
    "waiting_for_human": "waits for you",
    "stalled": "stalled",
    "paused": "paused",
    "failed": "failed",
    "lease_running_out": "lease runs out",
    "budget": "over budget",
}
"""`needs_attention` in words."""


def id_of(field: str = "id") -> Callable[[Row], str]:
    """What makes a short id of a field."""
    return lambda row: short_id(row[field]) if row.get(field) else ""


def attention(run: Row) -> str:
    """Why a person should look at a lane; "" for no reason."""
    why = run.get("needs_attention")
    return "" if why is None else ATTENTION.get(why, one_line(why).replace("_", " "))


def lease_left(run: Row, now: datetime | None = None) -> str:
    """How long a lane's lease still lasts; "" for one without."""
    until = parse_time(run.get("lease_expires_at"))
    if until is None:
        return ""
    seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return span(seconds) if seconds >= 1 else "over"


def last_line(run: Row) -> str:
    """What a lane has said last: its error where it failed, its summary where it shipped."""
    by_state = {"failed": "error", "shipped": "summary"}
    found = run.get(by_state.get(run["state"], "log_line")) or run.get("log_line")
    return "" if found is None else one_line(found)


def tokens(run: Row) -> int | None:
    """All tokens that a lane has used, or None where nobody said."""
    used = [run.get(field) for field in ("input_tokens", "output_tokens")]
    return None if all(number is None for number in used) else sum(number or 0 for number in used)


def count(number: int | None) -> str:
    """A number in few characters.

    >>> count(950), count(12_345), count(3_400_000)
    ('950', '12k', '3.4M')
    """
    if number is None:
        return ""
    if number < 1_000:
        return str(number)
    return f"{number // 1_000}k" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"


def dollars(value: Any) -> str:
    """Dollars with two digits; "" where nobody said."""
    try:
        return f"{float(value):.2f}"
    except (TypeError, ValueError):
        return ""


def age(run: Row) -> str:
    """How long ago a lane changed last: ended, was claimed or was made."""
    field = "finished_at" if run["state"] in FINISHED_STATES else "claimed_at"
    return ago(run.get(field) or run["created_at"])


def pairs(value: Any) -> str:
    """An object of strings as `name=value, …`."""
    return ", ".join(f"{name}={text}" for name, text in value.items()) if value else ""


LANE_COLUMNS: Final = (
    Column("id", id_of()),
    Column("lane", "lane_key", most=24),
    Column("role", "role", least=100),
    Column("state", "state", style=STATE_STYLES),
    Column("needs a hand", attention, style="bold yellow", least=70),
    Column("phase", "phase", most=14, least=110),
    Column("worker", "worker_id", most=24, least=120),
    Column("lease", lease_left, right=True, least=90),
    Column("since", age, least=130),
    Column("tokens", lambda run: count(tokens(run)), right=True, least=150),
    Column("USD", lambda run: dollars(run.get("cost_usd")), right=True, least=150),
    Column("last line", last_line, wide=True),
)

LANE_LINES: Final = (
    Column("lane", "lane_key", style="bold"),
    Column("title", "title"),
    Column("id", "id"),
    Column("role", "role"),
    Column("state", "state", style=STATE_STYLES),
    Column("needs a hand", attention, style="bold yellow"),
    Column("phase", "phase"),
    Column("last line", "log_line"),
    Column("error", "error", style="red"),
    Column("worker", "worker_id"),
    Column("agent", lambda run: " ".join(filter(None, (run.get("agent"), run.get("model"))))),
    Column("attempt", lambda run: run["attempt"] or None),
    Column("failures", lambda run: f"{run['failures']} of {run['max_failures']}" if run["failures"] else ""),
    Column("lease left", lease_left),
    Column("heard", since("last_heartbeat")),
    Column("claimed", since("claimed_at")),
    Column("not before", since("not_before")),
    Column("tokens", lambda run: "" if tokens(run) is None else f"{tokens(run):,}"),
    Column("cost", lambda run: f"{dollars(run['cost_usd'])} USD" if dollars(run.get("cost_usd")) else ""),
    Column("pull request", "pr_url"),
    Column("branch", "branch"),
    Column("commit", "commit"),
    Column("summary", "summary"),
    Column("labels", lambda run: pairs(run["labels"])),
    Column("priority", lambda run: run["priority"] or None),
    Column("waits for", lambda run: ", ".join(run["blocked_by"]) if run["state"] in ("queued", "released") else ""),
    Column("events", "event_count"),
    Column("made", since("created_at")),
    Column("ended", since("finished_at")),
    Column("plan", "plan_id"),
    Column("project", "project_id"),
)

PLAN_COLUMNS: Final = (
    Column("id", id_of()),
    Column("status", "status", style=STATE_STYLES),
    Column("lanes", lambda plan: len(plan["lanes"]), right=True),
    Column("made", since("created_at")),
    Column("title", "title", wide=True),
)

PLAN_LINES: Final = (
    Column("plan", "title", style="bold"),
    Column("id", "id"),
    Column("status", "status", style=STATE_STYLES),
    Column("reason", "rejection_reason"),
    Column("approved", since("approved_at")),
    Column("rejected", since("rejected_at")),
    Column("made", since("created_at")),
    Column("project", "project_id"),
    Column("milestone", "milestone_id"),
)

PLANNED_COLUMNS: Final = (
    Column("lane", "laneKey", most=24),
    Column("role", "role"),
    Column("priority", "priority", right=True, least=90),
    Column("after", lambda lane: ", ".join(lane["after"]), most=24),
    Column("labels", lambda lane: pairs(lane["labels"]), most=30, least=90),
    Column("title", "title", wide=True),
)
"""A plan's lanes while it isn't approved."""

WORKER_STYLES: Final = {"working": "green", "silent": "bold red", "waiting": "cyan", "idle": "dim"}


def _works_on(worker: Row) -> str:
    """The lanes that a worker holds, or what it asks for."""
    asks = worker["asks"]
    if asks is None:
        return ", ".join(f"{one_line(run['lane_key'], 40)} ({run['state']})" for run in worker["runs"])
    wanted = [*asks["roles"], *([pairs(asks["labels"])] if asks["labels"] else [])]
    return f"asks for {', '.join(wanted) or 'any lane'}, first {ago(asks['since'])}"


WORKER_COLUMNS: Final = (
    Column("worker", "worker_id", most=36),
    Column("status", "status", style=WORKER_STYLES),
    Column("lanes", lambda worker: len(worker["runs"]), right=True),
    Column("heard", since("last_heard")),
    Column("holds since", since("since"), least=100),
    Column(
        "needs a hand",
        lambda worker: ", ".join(sorted({attention(run) for run in worker["runs"]} - {""})),
        style="bold yellow",
        most=24,
        least=90,
    ),
    Column(
        "works on",
        _works_on,
        wide=True,
    ),
)

PROJECT_COLUMNS: Final = (
    Column("id", id_of()),
    Column("name", "name", most=40),
    Column("made", since("created_at")),
    Column("repository", "repo_url", wide=True),
)

MILESTONE_COLUMNS: Final = (
    Column("id", id_of()),
    Column("status", "status", style=STATE_STYLES),
    Column("due", since("due_at")),
    Column("made", since("created_at"), least=90),
    Column("name", "name", wide=True),
)
MILESTONE_LINES: Final = (
    Column("milestone", "name", style="bold"),
    Column("id", "id"),
    Column("status", "status", style=STATE_STYLES),
    Column("due", since("due_at")),
    Column("made", since("created_at")),
    Column("project", "project_id"),
)


def roles(ticket: Row) -> str:
    """A ticket's roles, those that are under way or over with their state."""
    return ", ".join(
        role if state == "pending" else f"{role} ({state.replace('_', ' ')})"
        for role, state in ticket["roles"].items()
        if role != "merged" or state != "pending"
    )


TICKET_COLUMNS: Final = (
    Column("id", id_of()),
    Column("stage", "stage"),
    Column("priority", "priority", most=10, least=90),
    Column("roles", roles, most=36, least=70),
    Column("made", since("created_at"), least=100),
    Column("title", "title", wide=True),
)
TICKET_LINES: Final = (
    Column("ticket", "title", style="bold"),
    Column("id", "id"),
    Column("status", "status", style=STATE_STYLES),
    Column("stage", "stage"),
    Column("resolution", "resolution_type"),
    Column("kind", "request_type"),
    Column("priority", "priority"),
    Column("blocking", lambda ticket: "yes" if ticket["blocking"] else ""),
    Column("roles", roles),
    Column("pull requests", lambda ticket: ", ".join(ticket["pr_urls"])),
    Column("elsewhere", "external_url"),
    Column("suggested", "suggested_resolution"),
    Column("asked by", "actor_role"),
    Column("milestone", "milestone_id"),
    Column("made", since("created_at")),
    Column("closed", since("closed_at")),
    Column("project", "project_id"),
)


def payload(event: Row) -> str:
    """What an event says, in a line: its text where it has one, else its payload's fields."""
    said = event["payload"]
    for field in ("line", "message", "phase", "summary"):
        text = said.get(field)
        if isinstance(text, str) and text:
            rest = {name: value for name, value in said.items() if name != field and isinstance(value, str | int)}
            return one_line(f"{text}  {pairs(rest)}" if rest and field == "phase" else text)
    return one_line(pairs({name: value for name, value in said.items() if value is not None}))


EVENT_COLUMNS: Final = (
    Column("seq", "seq", right=True),
    Column("when", since("recorded_at")),
    Column("type", "type"),
    Column("attempt", "attempt", right=True, least=90),
    Column("worker", "worker_id", most=24, least=120),
    Column("what", payload, wide=True),
)
