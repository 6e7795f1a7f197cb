"""How long an agent may be silent, take, and spend: what is wrong with it now, if anything. Pure.

Time here is the agent's own: seconds in which it ran, those in which its tree stood frozen left out, so that a pause or
an outage of the server is never held against it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

FIRST_OUTPUT_SECONDS: Final = 300.0
STALL_SECONDS: Final = 900.0

Kind = Literal["first_output", "stall", "max_time", "max_cost", "max_tokens"]


class Limits(NamedTuple):
    """What an agent may do. None: without limit.

    first_output_seconds    from its start to the first thing it prints
    stall_seconds           between two things it prints
    end_stalled             whether either ends it; else it is only told of
    max_seconds             in all
    max_cost_usd            dollars, as far as the agent says them
    max_tokens              tokens of every kind, likewise
    """

    first_output_seconds: float | None = FIRST_OUTPUT_SECONDS
    stall_seconds: float | None = STALL_SECONDS
    end_stalled: bool = False
    max_seconds: float | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None


class Standing(NamedTuple):
    """How far an agent is.

    running_seconds     since its start
    silent_seconds      since it last printed something; since its start where it hasn't yet
    printed             whether it has printed anything
    cost_usd, tokens    spent so far, None where the agent doesn't say
    """

    running_seconds: float
    silent_seconds: float
    printed: bool
    cost_usd: float | None = None
    tokens: int | None = None


class Breach(NamedTuple):
    """A limit that was passed.

    message     one sentence for the run's log
    reason      `stalled`, `timeout` or `budget`
    ends        whether the agent is to be ended for it; else it is told of once
    """

    kind: Kind
    message: str
    reason: str
    ends: bool


def breach(limits: Limits, standing: Standing) -> Breach | None:
    """The gravest limit that is passed now, or None.

    >>> breach(Limits(max_cost_usd=2.0), Standing(60, 1, True, cost_usd=2.5)).message
    'It has spent 2.50 USD; --max-cost-usd allows 2.00.'
    >>> breach(Limits(), Standing(60, 59, True)) is None
    True
    """
    if limits.max_cost_usd is not None and (standing.cost_usd or 0.0) > limits.max_cost_usd:
        message = f"It has spent {standing.cost_usd:.2f} USD; --max-cost-usd allows {limits.max_cost_usd:.2f}."
        return Breach("max_cost", message, "budget", ends=True)
    if limits.max_tokens is not None and (standing.tokens or 0) > limits.max_tokens:
        message = f"It has used {standing.tokens:,} tokens; --max-tokens allows {limits.max_tokens:,}."
        return Breach("max_tokens", message, "budget", ends=True)
    if limits.max_seconds is not None and standing.running_seconds > limits.max_seconds:
        message = f"It has run for {spoken(standing.running_seconds)}; --max-time allows {spoken(limits.max_seconds)}."
        return Breach("max_time", message, "timeout", ends=True)
    if not standing.printed:
        silence = limits.first_output_seconds
        if silence is not None and standing.silent_seconds > silence:
            message = f"It has printed nothing at all in {spoken(standing.silent_seconds)}."
            return Breach("first_output", message, "stalled", ends=limits.end_stalled)
    silence = limits.stall_seconds
    if silence is not None and standing.silent_seconds > silence:
        message = f"It has printed nothing for {spoken(standing.silent_seconds)}."
        return Breach("stall", message, "stalled", ends=limits.end_stalled)
    return None


def spoken(seconds: float) -> str:
    """A span of time as people say it.

    >>> spoken(42.4), spoken(900), spoken(5_430)
    ('42 s', '15 min', '1 h 30 min')
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


class RunningTime:
    """Counts the seconds in which something runs; stands still while it is held. For one thread at a time."""

    def __init__(self, now: float) -> None:
        self._since: float | None = now
        self._counted = 0.0

    def hold(self, now: float) -> None:
        """Stand still from now on. Safe to repeat."""
        if self._since is not None:
            self._counted += now - self._since
            self._since = None

    def go_on(self, now: float) -> None:
        """Count again from now on. Safe to repeat."""
        if self._since is None:
            self._since = now

    def seconds(self, now: float) -> float:
        """What was counted so far."""
        return self._counted + (0.0 if self._since is None else now - self._since)
