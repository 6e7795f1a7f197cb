"""The lane's state machine: `decide(run, command, now)` is the only place where a run's state comes from.

Plain functions over frozen values: no input or output, no clock of their own. `TABLE` at the end names, for each
command and each state, the one function that decides; read it beside the wire contract.

Two invariants stand above all others. At most one worker holds a lane: `worker_id` names a holder exactly in the held
states, and only `_take` sets it, only from a state in which nobody holds. No report of a past holder changes anything:
`_report` and `_release` compare the worker, and the attempt where it is sent, before they change a column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from heartlane.lanes import bounds
from heartlane.lanes.commands import (
    Cancel,
    Claim,
    Command,
    Hold,
    Lift,
    NotePullRequest,
    Pause,
    Release,
    Report,
    Resume,
    Retry,
    Ripen,
    TakeBack,
    Unblock,
)
from heartlane.lanes.decisions import (
    Decision,
    Refusal,
    finished,
    held_by_other,
    instant,
    no_longer_queued,
    not_claimed,
    not_held,
)
from heartlane.lanes.effects import EFFECTS, end, note_usage, set_phase
from heartlane.lanes.run import FINISHED_STATES, HELD_STATES, Event, Run, State, stalled_since
from heartlane.lanes.usage import usage_in


def decide(run: Run, command: Command, now: datetime) -> Decision | Refusal:
    """Decide one command on one run at `now` (aware UTC, the database's clock). Raises nothing."""
    return TABLE[type(command)][run.state](run, command, now)


def ticket_event(before: Run, after: Run) -> str | None:
    """What a lane's change means for its tickets: `claimed`, `shipped`, `failed`, `released`, or None.

    A lane that is taken back, released or failed gives its part of the ticket back, so all three lead to `pending`.
    """
    if before.state == after.state and before.attempt == after.attempt:
        return None
    if after.attempt > before.attempt:
        return "claimed"
    if after.state in FINISHED_STATES:
        return after.state
    return "released" if before.state in HELD_STATES and after.state not in HELD_STATES else None


def directive(run: Run, *, replay: bool = False) -> str:
    """What the operator wants of the worker whose report was answered: `continue`, `pause` or `stop`."""
    if run.state in FINISHED_STATES:
        return "stop" if replay else "continue"
    if run.state not in HELD_STATES or (run.budget_hold is None and run.state != "paused"):
        return "continue"
    return "stop" if run.budget_hold == "stop" else "pause"


def _unchanged(run: Run, command: Any, now: datetime) -> Decision:
    return Decision({})


# --- claims -------------------------------------------------------------------------------------------------------


def _take(run: Run, command: Claim, now: datetime) -> Decision | Refusal:
    if run.blockers_left > 0:
        return Refusal("LANE_BLOCKED", f"This lane waits for {run.blockers_left} other lane(s) to be shipped.", run)
    if run.not_before is not None and run.not_before > now:
        return Refusal("LANE_BLOCKED", f"This lane is not claimable before {instant(run.not_before)}.", run)
    lease = command.lease_seconds or bounds.LEASE_SECONDS_DEFAULT
    deadline = now + timedelta(seconds=lease)
    attempt = run.attempt + 1
    return Decision(
        {
            "state": "claimed",
            "worker_id": command.worker_id,
            "attempt": attempt,
            "last_seq": 0,
            "phase": None,
            "phase_at": None,
            "failure_reason": None,
            "attempt_usage_json": None,
            "budget_hold": None,
            "log_line": None,
            "lease_seconds": lease,
            "claimed_at": now,
            "last_heartbeat": now,
            "lease_expires_at": deadline,
            "take_back_at": deadline,
            "progress_at": now,
            "waiting_for": None,
            "over_budget": False,
            "not_before": None,
            "updated_at": now,
        },
        (Event("claimed", {"worker_id": command.worker_id, "attempt": attempt, "lease_seconds": lease}),),
    )


def _claim_held(run: Run, command: Claim, now: datetime) -> Decision | Refusal:
    """The holder's own second call renews and is the same attempt."""
    if command.worker_id != run.worker_id:
        return held_by_other(run, command, now)
    lease = command.lease_seconds or run.lease_seconds
    # A claim that was late in the network may ask for less than the holder was granted since, and counts on.
    deadline = max(now + timedelta(seconds=lease), run.lease_expires_at or now)
    return Decision(_renewal(run, deadline, now) | {"lease_seconds": lease})


def _renewal(run: Run, deadline: datetime, now: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {"last_heartbeat": now, "lease_expires_at": deadline, "updated_at": now}
    # The take-back looks at take_back_at alone, which a renewal leaves where it is (it re-arms itself), unless the
    # new deadline comes before it.
    if run.take_back_at is None or deadline < run.take_back_at:
        changes["take_back_at"] = deadline
    return changes


# --- reports ------------------------------------------------------------------------------------------------------


def _report(run: Run, command: Report, now: datetime) -> Decision | Refusal:
    refusal = _fence(run, command, now)
    if refusal is not None:
        return refusal
    lease = command.lease_seconds or run.lease_seconds
    changes = _renewal(run, now + timedelta(seconds=lease), now)
    if command.seq is not None:
        if command.seq <= run.last_seq:
            return Decision(changes, duplicate=True)
        changes["last_seq"] = command.seq
    if run.state == "claimed":
        changes["state"] = "running"
    if command.events:
        state = changes.get("state", run.state)
        for event in command.events:
            effect = EFFECTS.get(event.type)
            if effect is not None and state not in FINISHED_STATES:
                effect(changes, state, event.payload, now)
                state = changes.get("state", state)
            said = usage_in(event.type, event.payload)
            if said is not None:
                note_usage(run, changes, said)
            if event.type == "error" and event.payload.get("reason") == "stalled":
                changes["progress_at"] = stalled_since(run, now)
            elif event.type != "heartbeat":
                changes["progress_at"] = now
    if command.phase is not None:
        if command.phase != run.phase:
            changes["progress_at"] = now
            changes.setdefault("over_budget", False)  # not where this very report says that the budget is used up
        # A phase that is told again and again with every report doesn't say anew what the worker waits for.
        waits_for = changes.get("waiting_for", run.waiting_for)
        set_phase(changes, changes.get("state", run.state), command.phase, waits_for)
    if command.log_line is not None:
        if command.log_line != run.log_line:
            changes["progress_at"] = now
        changes["log_line"] = command.log_line
    if "phase" in changes and changes["phase"] != run.phase:
        changes["phase_at"] = now
    return Decision(changes, command.events)


def _fence(run: Run, command: Report | Release, now: datetime) -> Refusal | None:
    if command.worker_id != run.worker_id:
        return held_by_other(run, command, now)
    return _fence_attempt(run, command, now)


def _fence_attempt(run: Run, command: Report | Release, now: datetime) -> Refusal | None:
    if command.attempt is not None and command.attempt != run.attempt:
        return Refusal(
            "STALE_ATTEMPT",
            f"Attempt {command.attempt} is not the current one: worker {run.worker_id!r} holds this lane as attempt "
            f"{run.attempt} until {instant(run.lease_expires_at)}.",
            run,
        )
    return None


def _report_finished(run: Run, command: Report, now: datetime) -> Decision | Refusal:
    """A replay of a report that was applied before the end is answered as such; anything else comes too late."""
    replay = (
        command.seq is not None
        and command.seq <= run.last_seq
        and command.worker_id == run.worker_id
        and command.attempt in (None, run.attempt)
    )
    return Decision({}, duplicate=True) if replay else finished(run, command, now)


# --- giving back --------------------------------------------------------------------------------------------------


def _release(run: Run, command: Release, now: datetime) -> Decision | Refusal:
    refusal = (_fence_attempt if command.worker_id is None else _fence)(run, command, now)
    if refusal is not None:
        return refusal
    changes = _let_go(run, "released", now)
    if command.retry_after:
        changes["not_before"] = now + timedelta(seconds=command.retry_after)
    if command.failed:
        _count_failure(changes, run, now, command.reason or "the worker released it as failed")
    payload = {
        "worker_id": run.worker_id,
        "attempt": run.attempt,
        "reason": command.reason,
        "retry_after": command.retry_after,
        "failed": command.failed,
    }
    if command.worker_id is None:
        payload["by"] = command.by
    return Decision(changes, (Event("released", payload),))


def _release_unheld(run: Run, command: Release, now: datetime) -> Decision | Refusal:
    """A release whose answer was lost may be sent again: same worker, same attempt, still released."""
    if run.state == "released" and command.worker_id == run.last_worker_id and command.attempt == run.attempt:
        return Decision({})
    return not_held(run, command, now)


def _let_go(run: Run, state: str, now: datetime) -> dict[str, Any]:
    return {
        "state": state,
        "worker_id": None,
        "last_worker_id": run.worker_id,
        "claimed_at": None,
        "lease_expires_at": None,
        "take_back_at": None,
        "waiting_for": None,
        "over_budget": False,
        # A lane that its budget has stopped is marked until there is budget again.
        "budget_hold": run.budget_hold if run.budget_hold == "stop" else None,
        "updated_at": now,
    }


def _count_failure(changes: dict[str, Any], run: Run, now: datetime, why: str) -> None:
    failures = run.failures + 1
    changes["failures"] = failures
    if failures >= run.max_failures:
        error = f"Failed {failures} time(s), the most allowed (max_failures {run.max_failures}). The last time: {why}"
        changes.update(state="failed", error=error[: bounds.ERROR_MAX], finished_at=now, not_before=None)


def _take_back(run: Run, command: TakeBack, now: datetime) -> Decision:
    if command.valid_until is not None and now > command.valid_until:
        return Decision({})
    deadline = run.lease_expires_at
    if deadline is None:  # unreachable by the rules; without a deadline there is nothing to wait for
        deadline = now
    heard = run.last_heartbeat or deadline
    if command.resumed_at is not None and heard < command.resumed_at:
        # While no server ran, nobody could be heard: each holder gets one lease, at most five minutes, to come back.
        lease = min(deadline - heard, timedelta(seconds=bounds.GRACE_SECONDS_MAX))
        deadline = max(deadline, command.resumed_at + lease)
    if now < deadline:
        return Decision({} if run.take_back_at == deadline else {"take_back_at": deadline})
    changes = _let_go(run, "queued", now)
    # A worker that was told to stop, and simply did, has not failed.
    failures = run.failures
    if run.budget_hold != "stop":
        failures += 1
        _count_failure(changes, run, now, f"worker {run.worker_id!r} was last heard {instant(run.last_heartbeat)}")
    payload = {
        "worker_id": run.worker_id,
        "attempt": run.attempt,
        "last_heard": _payload_time(run.last_heartbeat),
        "deadline": _payload_time(run.lease_expires_at),
        "last_phase": run.phase,
        "last_log_line": run.log_line,
        "failures": failures,
        "max_failures": run.max_failures,
    }
    return Decision(changes, (Event("lease_expired", payload),))


def _payload_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


# --- the operator's hand ------------------------------------------------------------------------------------------


def _pause(run: Run, command: Pause, now: datetime) -> Decision:
    return Decision({"state": "paused", "updated_at": now}, (Event("paused", {"by": command.by}),))


def _resume(run: Run, command: Resume, now: datetime) -> Decision:
    state = "shipping" if run.phase == "shipping" else "running"
    # A lane that stood still by order has its quiet time counted from here.
    changes = {"state": state, "progress_at": now, "updated_at": now}
    return Decision(changes, (Event("resumed", {"by": command.by}),))


def _cancel(run: Run, command: Cancel, now: datetime) -> Decision:
    by = f" ({command.by})" if command.by else ""
    changes: dict[str, Any] = {"error": f"Cancelled by an operator{by}.", "not_before": None, "updated_at": now}
    end(changes, "failed", now)
    return Decision(changes, (Event("cancelled", {"by": command.by, "worker_id": run.worker_id}),))


def _retry(run: Run, command: Retry, now: datetime) -> Decision:
    changes = {
        "state": "queued",
        "failures": 0,
        "error": None,
        "worker_id": None,
        "last_worker_id": run.worker_id or run.last_worker_id,
        "claimed_at": None,
        "waiting_for": None,
        "over_budget": False,
        "not_before": None,
        "finished_at": None,
        "updated_at": now,
    }
    return Decision(changes, (Event("retried", {"by": command.by}),))


def _unblock(run: Run, command: Unblock, now: datetime) -> Decision:
    return Decision({"blockers_left": max(0, run.blockers_left - 1), "updated_at": now})


def _ripen(run: Run, command: Ripen, now: datetime) -> Decision:
    """Claims find a lane without `not_before` by its place in the queue alone, so it is cleared once it has passed."""
    if run.not_before is None or run.not_before > now:
        return Decision({})
    return Decision({"not_before": None, "updated_at": now})


def _note_pull_request(run: Run, command: NotePullRequest, now: datetime) -> Decision:
    """Written down in any state, after the end too: a pull request is merged when its lane has long been shipped."""
    payload = {"url": command.url, "state": command.state, "title": command.title, "by": command.by}
    return Decision({"updated_at": now}, (Event("pull_request", payload),))


def _hold(run: Run, command: Hold, now: datetime) -> Decision:
    """What the project's budget wants: the holder is told to stand still, or to stop, which is the stronger."""
    if run.budget_hold in (command.action, "stop"):
        return Decision({})
    changes = {"budget_hold": command.action, "updated_at": now}
    return Decision(changes, (Event("budget_held", {"reason": command.words, "directive": command.action}),))


def _lift(run: Run, command: Lift, now: datetime) -> Decision:
    if run.budget_hold is None:
        return Decision({})
    changes: dict[str, Any] = {"budget_hold": None, "updated_at": now}
    if run.state in HELD_STATES:
        changes["progress_at"] = now  # its quiet time is counted from here
    return Decision(changes, (Event("budget_lifted", {"held": run.budget_hold}),))


# --- the table ----------------------------------------------------------------------------------------------------

Rule = Callable[[Run, Any, datetime], Decision | Refusal]


def _by_state(free: Rule, held: Rule, ended: Rule, **exceptions: Rule) -> Mapping[str, Rule]:
    """One rule per group of states: free (queued, released), held (claimed … shipping), ended (shipped, failed)."""
    groups = dict.fromkeys(("queued", "released"), free)
    groups |= dict.fromkeys(("claimed", "running", "paused", "shipping"), held)
    groups |= dict.fromkeys(("shipped", "failed"), ended)
    return groups | exceptions


TABLE: Final[Mapping[type[Command], Mapping[str, Rule]]] = {
    #                   queued, released   claimed … shipping   shipped, failed    but for
    Report:   _by_state(not_held,         _report,             _report_finished),
    Claim:    _by_state(_take,             _claim_held,         no_longer_queued),
    Release:  _by_state(_release_unheld,   _release,            finished),
    Pause:    _by_state(not_claimed,      _pause,              finished,         paused=_unchanged),
    Resume:   _by_state(not_claimed,      _unchanged,          finished,         paused=_resume),
    Cancel:   _by_state(_cancel,           _cancel,             finished),
    Retry:    _by_state(_unchanged,        held_by_other,      finished,         failed=_retry),
    TakeBack: _by_state(_unchanged,        _take_back,          _unchanged),
    Unblock:  _by_state(_unblock,          _unblock,            _unblock),
    Ripen:    _by_state(_ripen,            _unchanged,          _unchanged),
    NotePullRequest: dict.fromkeys(map(str, State), _note_pull_request),
    Hold:     _by_state(_unchanged,        _hold,               _unchanged),
    Lift:     _by_state(_lift,             _lift,               _lift),
}  # fmt: skip
