"""How a lane's work ended: what the agent's last lines said, weighed against how its process went.

    said             exit                          ended
    success          0                             success
    success          it lingered and was stopped   success: the event counts
    success          anything else                 failure: it broke down after it
    failure          any                           failure, for the reason it gave
    nothing          0, the exit decides           success (a plain command; formats whose last line is optional)
    nothing          any                           failure: killed, crashed, or what its last words come to

"The exit decides" and "the event decides" (OpenCode, whose exit code says nothing) are the adapter's `trust`.
"""

from __future__ import annotations

import signal as signals
from datetime import datetime
from typing import Any, Final, NamedTuple

from heartlane.lanes.bounds import ERROR_MAX
from heartlane.worker.agents.base import Adapter, AgentEvent, Result
from heartlane.worker.reasons import WAITING, Reason, classify
from heartlane.worker.retry_times import find_time, stamp
from heartlane.worker.text import last_lines

LAST_LINES: Final = 5
"""Lines at the end of stderr, and of the output that was no event, that a reason is looked for in."""
_CRASHES: Final = frozenset(
    getattr(signals, name).value
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
    if hasattr(signals, name)
)
_BY_SHELL: Final = 128
"""A shell's exit code for a signal is this and the signal's number."""


class Exit(NamedTuple):
    """How the process went.

    code         its exit code; None where a signal ended it
    signal       that signal's number
    stderr_tail  the end of what it wrote to stderr
    lingered     it was stopped because it didn't exit after its last event
    stopped      why the sidecar stopped it before that, if it did: `budget`, `killed`, …; `message` says it in words
    empty        it left neither a commit nor a change, and was to
    """

    code: int | None = None
    signal: int | None = None
    stderr_tail: str = ""
    lingered: bool = False
    stopped: Reason | None = None
    message: str | None = None
    empty: bool = False


class Conclusion(NamedTuple):
    """The verdict. `event` is the run's last: `ship_complete`, or a fatal `error`.

    reason, message   of a failure; None of a success
    retry_at          aware, UTC: when the agent said that it could be tried again
    """

    success: bool
    reason: Reason | None
    message: str | None
    retry_at: datetime | None
    event: AgentEvent


def conclude(adapter: Adapter, ended: Exit, at: datetime) -> Conclusion:
    """Decide how a run ended. All its output has been read, and `finish` called.

    `at`: when it ended, aware, in the zone of the machine. A pure function: nothing of the adapter's changes.
    """
    if ended.stopped is not None:
        return _failure(adapter, ended, ended.stopped, ended.message or f"Stopped: {ended.stopped}.", None)
    if _succeeded(adapter, ended):
        if not ended.empty:
            return Conclusion(True, None, None, None, AgentEvent("ship_complete", _facts(adapter)))
        return _failure(adapter, ended, "empty", "It said it was done, but left neither a commit nor a change.", None)
    reason, message, retry_at = _why(adapter, ended)
    if retry_at is None and reason in WAITING:
        retry_at = find_time(message, at) or find_time(ended.stderr_tail, at)
    return _failure(adapter, ended, reason, message, retry_at)


def _succeeded(adapter: Adapter, ended: Exit) -> bool:
    result = adapter.result
    good_exit = ended.code == 0 and ended.signal is None
    if adapter.trust == "event":
        if result is not None:
            return result.success
        # Seen: the closing event left out although the answer is whole. A process that was killed has no such excuse.
        return good_exit and adapter.trouble is None and adapter.last_text is not None
    if result is not None:
        return result.success and (good_exit or ended.lingered)
    return adapter.trust == "exit" and good_exit and adapter.trouble is None


def _why(adapter: Adapter, ended: Exit) -> tuple[Reason, str, datetime | None]:
    """The reason, the words and the time of a failure, from the first of its sources that knows."""
    result, trouble = adapter.result, adapter.trouble
    words = _last_words(ended.stderr_tail) or _last_words(adapter.plain_tail)
    by_words = classify(words) if words else "unknown"
    by_exit = _by_exit(adapter, ended)
    if result is not None and not result.success:
        message = result.message or (trouble.message if trouble else None) or words or _exit_text(ended)
        if result.reason not in (None, "unknown"):
            return result.reason, message, result.retry_at
        reason = classify(message)
        if reason == "unknown":
            reason = by_exit if by_exit not in (None, "crashed") else by_words
        return reason, message, result.retry_at
    if result is not None:
        return by_exit or "crashed", _joined(f"It said that it was done, and then: {_exit_text(ended)}", words), None
    if trouble is not None and trouble.reason != "unknown":
        return trouble.reason, trouble.message, trouble.retry_at
    if by_exit in ("killed", "crashed") and ended.code is None:
        return by_exit, _joined(_exit_text(ended), words), None
    if by_exit not in (None, "crashed"):
        return by_exit, words or (trouble.message if trouble else None) or _exit_text(ended), None
    if trouble is not None:
        return by_words if by_words != "unknown" else by_exit or "unknown", trouble.message, trouble.retry_at
    if by_words != "unknown" and ended.code != 0:
        return by_words, words, None
    if ended.code == 0:
        return "unknown", _joined("It exited without saying how it went.", words), None
    return by_exit or "unknown", _joined(_exit_text(ended), words), None


def _by_exit(adapter: Adapter, ended: Exit) -> Reason | None:
    """What the exit alone says: a signal, a code that the agent gives a meaning, or just that it broke down."""
    if ended.lingered and adapter.result is not None:
        return None  # it was stopped after its end
    number = ended.signal
    if number is None and ended.code is not None:
        if ended.code in adapter.exit_reasons:
            return adapter.exit_reasons[ended.code]
        number = (
            -ended.code if ended.code < 0 else ended.code - _BY_SHELL if _is_signal(ended.code - _BY_SHELL) else None
        )
    if number is not None:
        return "crashed" if number in _CRASHES else "killed"
    return None if ended.code in (0, None) else "crashed"


def _is_signal(number: int) -> bool:
    try:
        signals.Signals(number)
    except ValueError:
        return False
    return True


def _exit_text(ended: Exit) -> str:
    if ended.signal is not None:
        name = signals.Signals(ended.signal).name if _is_signal(ended.signal) else f"signal {ended.signal}"
        return f"Ended by {name}."
    return f"Exited with code {ended.code}." if ended.code is not None else "Ended in an unknown way."


def _last_words(text: str) -> str:
    lines = [line for line in last_lines(text, ERROR_MAX).split("\n") if line.strip()]
    return "\n".join(lines[-LAST_LINES:])


def _joined(first: str, words: str) -> str:
    return f"{first}\n{words}" if words else first


def _facts(adapter: Adapter) -> dict[str, Any]:
    """What is known of the run, each only where the agent said it."""
    result = adapter.result or Result(False)
    usage = adapter.usage
    said = {
        "summary": result.summary or adapter.last_text,
        "session_id": result.session_id or adapter.session_id,
        "model": result.model or adapter.model,
        "input_tokens": usage.input_tokens if result.input_tokens is None else result.input_tokens,
        "output_tokens": usage.output_tokens if result.output_tokens is None else result.output_tokens,
        "cached_tokens": usage.cached_tokens if result.cached_tokens is None else result.cached_tokens,
        "cost_usd": usage.cost_usd if result.cost_usd is None else result.cost_usd,
        "turns": result.turns,
        "duration_ms": result.duration_ms,
    }
    return {name: value for name, value in said.items() if value is not None}


def _failure(adapter: Adapter, ended: Exit, reason: Reason, message: str, retry_at: datetime | None) -> Conclusion:
    message = last_lines(message, ERROR_MAX) or _exit_text(ended)
    payload: dict[str, Any] = {"message": message, "reason": reason, "fatal": True}
    if retry_at is not None:
        payload["retry_at"] = stamp(retry_at)
    if ended.code is not None:
        payload["exit_code"] = ended.code
    if ended.signal is not None:
        payload["signal"] = ended.signal
    return Conclusion(False, reason, message, retry_at, AgentEvent("error", payload | _facts(adapter)))
