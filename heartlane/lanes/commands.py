"""What can be asked of a run. Every change of a run is one of these commands, decided by `heartlane.lanes.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from heartlane.lanes.run import Event


class Report(NamedTuple):
    """A worker's telemetry: renews its lease and tells what happened.

    lease_seconds   new lease, or None for the claim's own length
    phase, log_line latest values, or None where not given
    attempt, seq    fencing number and report number, or None where not sent
    """

    worker_id: str
    lease_seconds: int | None = None
    phase: str | None = None
    log_line: str | None = None
    events: Sequence[Event] = ()
    attempt: int | None = None
    seq: int | None = None


class Claim(NamedTuple):
    """A worker asks for this very lane. The holder's own claim renews; lease_seconds None means the default."""

    worker_id: str
    lease_seconds: int | None = None


class Release(NamedTuple):
    """Give the lane back: the holder (worker_id set) or an operator (worker_id None).

    retry_after     seconds until the lane is claimable again, or None for at once
    failed          whether this counts as a failure
    by              name of the operator's token, for the record
    """

    worker_id: str | None = None
    attempt: int | None = None
    reason: str | None = None
    retry_after: float | None = None
    failed: bool = False
    by: str | None = None


class Pause(NamedTuple):
    """An operator asks the holder to stand still; the claim is kept."""

    by: str | None = None


class Resume(NamedTuple):
    """An operator lets a paused lane go on."""

    by: str | None = None


class Cancel(NamedTuple):
    """An operator ends the run as `failed`."""

    by: str | None = None


class Retry(NamedTuple):
    """An operator puts a failed run back into the queue, its failures at 0."""

    by: str | None = None


class Hold(NamedTuple):
    """The project's budget is used up: the holder is told to stand still, or to stop and give the lane back.

    action      `pause` or `stop`, the directive that its reports are answered with
    words       why, in one sentence
    """

    action: str
    words: str


class Lift(NamedTuple):
    """The project's budget lets the lane go on."""


class TakeBack(NamedTuple):
    """The server looks whether the lease has run out.

    resumed_at      the first moment any server ran again after a time without one, or None
    valid_until     until when `resumed_at` is known to be the last such moment; a look that is decided later (the
                    server or its database stood still) changes nothing, and the next one knows more. None: for ever
    """

    resumed_at: datetime | None = None
    valid_until: datetime | None = None


class Unblock(NamedTuple):
    """The server tells a lane that one of the lanes it waits for has shipped."""


class Ripen(NamedTuple):
    """The server looks whether the time until which a lane is held back (`not_before`) has passed."""


class NotePullRequest(NamedTuple):
    """The place where the lane's pull request is says what became of it.

    state   `opened`, `merged` or `closed` (without being merged)
    by      who did it there, or None
    """

    url: str
    state: str
    title: str | None = None
    by: str | None = None


Command = (
    Report
    | Claim
    | Release
    | Pause
    | Resume
    | Cancel
    | Retry
    | TakeBack
    | Unblock
    | Ripen
    | Hold
    | Lift
    | NotePullRequest
)
