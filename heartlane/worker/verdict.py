"""What becomes of a lane when its agent has ended: shipped, failed, given back, and what the next one is told.

    the claim was lost                      nothing more: it is somebody else's
    the server was away too long            nothing more: nobody can be told; the spool keeps what there is
    the worker was told to stop             given back, not counted
    a limit was passed                      failed
    the agent said `heartlane fail`         failed, by its own words
    the adapter and the exit say success    the worktree is looked at, the success command run, the branch published;
                                            shipped when all of it went well, else failed
    a usage limit, a rate limit             given back until then, not counted
    the agent isn't logged in               given back, not counted
    anything else                           failed

A failure is given back and counted, or ends the run, as `--on-failure` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from heartlane.lanes.bounds import SUMMARY_MAX
from heartlane.worker.agents import Adapter
from heartlane.worker.agents.base import PLAIN
from heartlane.worker.ending import Conclusion, conclude
from heartlane.worker.ending import Exit as Ended
from heartlane.worker.errors import WorkerError
from heartlane.worker.keeper import Loss
from heartlane.worker.options import WorkOptions
from heartlane.worker.starting import Checked
from heartlane.worker.telling import Voice
from heartlane.worker.watch import Watched
from heartlane.worker.workplace import Workplace

USAGE_LIMIT_SECONDS: Final = 900.0
"""How long an agent rests that is out of quota and didn't say until when."""
RATE_LIMIT_SECONDS: Final = 60.0
NOT_COUNTED: Final = frozenset({"usage_limit", "rate_limit", "auth"})
"""Reasons that say nothing about the lane: it is given back without a failure, whatever `--on-failure` says."""

Kind = Literal["shipped", "failed", "released", "lost", "abandoned"]


class Verdict(NamedTuple):
    """What was decided.

    kind        `failed` ends the run; `released` gives it back
    message     one text that says why
    event       the last event: its type and payload; None for none
    counts      whether a release counts as a failure
    reason      of a failure
    retry_at    aware, UTC: when the agent can work again
    code        of a claim that was lost: what the server said
    """

    kind: Kind
    message: str
    event: tuple[str, dict[str, Any]] | None = None
    counts: bool = False
    reason: str | None = None
    retry_at: datetime | None = None
    code: str | None = None

    @property
    def success(self) -> bool:
        """Whether the lane ships."""
        return self.kind == "shipped"

    @property
    def ends_run(self) -> bool:
        """Whether its event is the run's last."""
        return self.kind in ("shipped", "failed")

    def retry_after(self, now: datetime) -> float | None:
        """Seconds for which nobody needs to try the lane again; None: at once."""
        return rest_seconds(self.reason, self.retry_at, now) if self.reason in ("usage_limit", "rate_limit") else None


def rest_seconds(reason: str | None, retry_at: datetime | None, now: datetime) -> float:
    """How long an agent rests after a limit.

    >>> rest_seconds("rate_limit", None, datetime(2026, 1, 1, tzinfo=UTC))
    60.0
    """
    if retry_at is not None:
        return max(1.0, (retry_at - now).total_seconds())
    return RATE_LIMIT_SECONDS if reason == "rate_limit" else USAGE_LIMIT_SECONDS


def lost(loss: Loss | None) -> Verdict:
    """The claim is gone; None: nobody could be asked for so long that it has to be taken for gone."""
    if loss is None:
        return Verdict("abandoned", "the server could not be reached for so long that the claim can't hold any more")
    return Verdict("lost", loss.message, code=loss.code)


TOLD: Final = Verdict("released", "the worker was told to stop")


def judge(
    *,
    adapter: Adapter,
    watched: Watched,
    voice: Voice,
    workplace: Workplace,
    options: WorkOptions,
    run: Mapping[str, Any],
    check: Callable[[], Checked],
    refused: Callable[[], Verdict | None],
) -> Verdict:
    """Decide what becomes of the lane whose agent has ended by itself or by a limit; runs what is left to be done.

    run     the run object of the claim
    check   runs the success command
    refused waits until the lane is certainly still ours; the verdict where it isn't: nothing is published for others
    """
    ended = _ended(watched)
    verdict = _named(conclude(adapter, ended, datetime.now().astimezone()), adapter)
    if voice.failed is not None:
        return _failed(voice.failed, "unknown", options, fatal=voice.fatal, more=_facts_of(verdict))
    if not verdict.success and not _shipped_by_voice(verdict, ended, voice):
        return _failure(verdict, options)
    try:
        changed, facts = workplace.settle(str(run.get("title") or run.get("lane_key")))
        if not changed and adapter.name != PLAIN and not options.allow_empty and voice.shipped is None:
            empty = conclude(adapter, ended._replace(empty=True), datetime.now().astimezone())
            return _failure(_named(empty, adapter), options)
        if options.success is not None:
            checked = check()
            if checked.interrupted:
                return refused() or TOLD
            if not checked.passed:
                return _failed(checked.message, "check", options, more=_facts_of(verdict))
        payload = {**(_facts_of(verdict) if verdict.success else {}), **facts, **(voice.shipped or {})}
        summary = str(payload.get("summary") or run.get("title") or "")
        known = payload.get("pr_url") or run.get("pr_url")
        if (taken := refused()) is not None:
            return taken
        payload |= workplace.publish(str(run.get("title") or ""), summary, known if isinstance(known, str) else None)
    except WorkerError as error:
        return _failed(str(error), "unknown", options, more=_facts_of(verdict))
    payload.setdefault("agent", adapter.name)
    if "summary" in payload:
        payload["summary"] = str(payload["summary"])[:SUMMARY_MAX]
    said = str(payload.get("summary") or "done").strip().partition("\n")[0]
    return Verdict("shipped", said, ("ship_complete", payload))


def _named(verdict: Conclusion, adapter: Adapter) -> Conclusion:
    """With the agent's name in its event: a session is no use to the next attempt without it."""
    event = verdict.event
    return verdict._replace(event=event._replace(payload={"agent": adapter.name, **event.payload}))


def _ended(watched: Watched) -> Ended:
    exit_code = None if watched.exit is None else watched.exit.code
    signal = None if watched.exit is None else watched.exit.signal
    if watched.breach is not None:
        reason: Literal["budget", "killed"] = "budget" if watched.breach.reason == "budget" else "killed"
        return Ended(exit_code, signal, watched.stderr_tail, stopped=reason, message=watched.breach.message)
    return Ended(exit_code, signal, watched.stderr_tail, lingered=watched.lingered)


def _shipped_by_voice(verdict: Conclusion, ended: Ended, voice: Voice) -> bool:
    """Whether `heartlane ship` was said by a command that ended well but printed no result of its own."""
    if voice.shipped is None or ended.stopped is not None:
        return False
    if ended.lingered:  # ended by us, after it had said so: that we killed it says nothing
        return verdict.reason in ("unknown", "empty", "killed")
    return ended.code == 0 and verdict.reason in ("unknown", "empty")


def _facts_of(verdict: Conclusion) -> dict[str, Any]:
    """What the agent said of its run, without what belongs to an error alone."""
    return {
        name: value
        for name, value in verdict.event.payload.items()
        if name not in ("message", "reason", "fatal", "retry_at", "exit_code", "signal")
    }


def _failure(verdict: Conclusion, options: WorkOptions) -> Verdict:
    reason, message = verdict.reason or "unknown", verdict.message or "It failed."
    given_back = reason in NOT_COUNTED or options.on_failure == "release"
    payload = {**verdict.event.payload, "fatal": not given_back}
    retry_at = None if verdict.retry_at is None else verdict.retry_at.astimezone(UTC)
    kind: Kind = "released" if given_back else "failed"
    return Verdict(
        kind, message, ("error", payload), counts=reason not in NOT_COUNTED, reason=reason, retry_at=retry_at
    )


def _failed(
    message: str, reason: str, options: WorkOptions, *, fatal: bool = False, more: Mapping[str, Any] | None = None
) -> Verdict:
    ends = fatal or options.on_failure == "fail"
    payload = {"message": message, "reason": reason, "fatal": ends, **(more or {})}
    return Verdict("failed" if ends else "released", message, ("error", payload), counts=True, reason=reason)
