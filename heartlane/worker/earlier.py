"""What the attempts before this one left on a lane: branch, pull request, phase, error, session. Pure.

It is read from the run object and its event log, both as the API answers them. The next attempt is told, so that it
goes on with the work instead of beginning it anew, and opens no second pull request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from heartlane.lanes import bounds

TELLING_TYPES: Final = (
    "action",
    "error",
    "phase_change",
    "ship_complete",
    "log_line",
    "released",
    "lease_expired",
    "cancelled",
)
"""Types of events that may say something here; for `GET /api/agents/runs/{id}/events?type=…`."""
ERROR_SHOWN_MAX: Final = 2_000
SESSION_ID_MAX: Final = 500
AGENT_MAX: Final = 100


class Earlier(NamedTuple):
    """What is left of earlier attempts; each None where nothing is.

    branch, pr_url  the last that were named
    phase           where the last attempt stopped
    error           why the last attempt ended, or what it last complained of
    session_id      the agent's last session, and `agent`, whose it is where that is known
    """

    branch: str | None = None
    pr_url: str | None = None
    phase: str | None = None
    error: str | None = None
    session_id: str | None = None
    agent: str | None = None

    def known(self) -> dict[str, str]:
        """The fields that have something to say."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def what_is_left(run: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> Earlier:
    """What earlier attempts left. Never raises: whatever has another form than it should have says nothing.

    run     the run object of this attempt's claim
    events  events of the run's log, in any order; those of this attempt are left out
    """
    attempt = run.get("attempt")
    if not isinstance(attempt, int) or attempt <= 1:
        return Earlier()
    found: dict[str, str] = {}
    ordered = sorted(
        (event for event in events if _number(event.get("attempt")) < attempt),
        key=lambda event: _number(event.get("seq")),
    )
    last_attempt = max((_number(event.get("attempt")) for event in ordered), default=0)
    for event in ordered:
        payload = event.get("payload")
        if isinstance(payload, Mapping):
            _learn(found, str(event.get("type")), payload, of_last=event.get("attempt") == last_attempt)
    # The run keeps what its reports set for good; the log may have been thinned out meanwhile.
    for name, longest in (("branch", bounds.BRANCH_MAX), ("pr_url", bounds.PR_URL_MAX), ("error", ERROR_SHOWN_MAX)):
        value = _text(run.get(name), longest)
        if value is not None:
            found.setdefault(name, value)
    return Earlier(**found)


def _learn(found: dict[str, str], kind: str, payload: Mapping[str, Any], *, of_last: bool) -> None:
    def take(name: str, value: Any, longest: int) -> None:
        text = _text(value, longest)
        if text is not None:
            found[name] = text

    take("branch", payload.get("branch"), bounds.BRANCH_MAX)
    take("pr_url", payload.get("pr_url"), bounds.PR_URL_MAX)
    session = _text(payload.get("session_id"), SESSION_ID_MAX)
    if session is not None:
        if session != found.get("session_id"):
            found.pop("agent", None)  # another session may be another agent's
        found["session_id"] = session
        take("agent", payload.get("agent"), AGENT_MAX)
    if not of_last:
        return
    if kind == "phase_change":
        take("phase", payload.get("phase"), bounds.PHASE_MAX)
    elif kind == "lease_expired":
        take("phase", payload.get("last_phase"), bounds.PHASE_MAX)
        take("error", _lost(payload), ERROR_SHOWN_MAX)
    elif kind == "error":
        take("error", payload.get("message"), ERROR_SHOWN_MAX)
    elif kind == "released":
        take("error", payload.get("reason"), ERROR_SHOWN_MAX)
    elif kind == "cancelled":
        take("error", "cancelled by an operator", ERROR_SHOWN_MAX)


def _lost(payload: Mapping[str, Any]) -> str:
    worker, heard = payload.get("worker_id"), payload.get("last_heard")
    line = payload.get("last_log_line")
    return f"worker {worker or 'unknown'} was lost, last heard {heard or 'at an unknown time'}" + (
        f"; its last line: {line}" if isinstance(line, str) and line.strip() else ""
    )


def _text(value: Any, longest: int) -> str | None:
    """A string that says something, cut to `longest`; without NUL, which no environment can hold."""
    if not isinstance(value, str):
        return None
    text = value.replace("\0", "").strip()
    return text[:longest] or None


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
