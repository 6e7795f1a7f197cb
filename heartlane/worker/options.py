"""What `heartlane work` was asked for: one frozen value that every part of the worker reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from heartlane.worker.coalescer import LINES_PER_SECOND
from heartlane.worker.limits import Limits

LEASE_SECONDS: Final = 300
REACH_SECONDS: Final = 15.0
GRACE_SECONDS: Final = 10.0
OUTAGE_SECONDS: Final = 3600.0
AFTER_RESULT_SECONDS: Final = 20.0
SUCCESS_SECONDS: Final = 1800.0
PARALLEL_MAX: Final = 64

OnFailure = Literal["release", "fail"]
OnPause = Literal["freeze", "tell"]


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """One worker's ways.

    command             the agent's command line, with placeholders; empty for the recipe of `agent`
    agent               name of the adapter, or None to find it from the command
    shell               whether the command is one text for /bin/sh
    roles, labels       which lanes it takes: roles (empty: any), and what it offers
    project_id          only this project's lanes
    lease_seconds       length of its leases
    wait_seconds        how long one claim waits for a lane at the server, 0–30
    parallel            lanes at once, 1–PARALLEL_MAX
    once                end after one lane
    reach_seconds       how long a server is tried that was never reached; None: for as long as it takes
    grace_seconds       from SIGTERM to SIGKILL
    outage_seconds      how long an agent stands frozen while the server can't be reached, before it is ended
    after_result_seconds  how long an agent may linger after its result
    limits              how long it may be silent, take and spend
    on_failure          give a failed lane back, counted as a failure, or end it
    on_pause            freeze the agent's tree, or only write the pause into its lane file
    allow_empty         whether a lane may ship without any change in its worktree
    success             a command that must pass before a lane ships, or None
    success_seconds     how long that command may take
    resume              whether an agent that can goes on in the session of the attempt before
    worktree            repository of which each lane gets a worktree, or None
    push, pull_request  what becomes of the branch when the lane ships
    redact              further patterns (regular expressions) of secrets
    lines_per_second    log lines that are reported; the rest is counted
    name                what the worker's id begins with
    """

    command: Sequence[str] = ()
    agent: str | None = None
    shell: bool = False
    roles: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    project_id: str | None = None
    lease_seconds: int = LEASE_SECONDS
    wait_seconds: float = 25.0
    parallel: int = 1
    once: bool = False
    reach_seconds: float | None = REACH_SECONDS
    grace_seconds: float = GRACE_SECONDS
    outage_seconds: float = OUTAGE_SECONDS
    after_result_seconds: float = AFTER_RESULT_SECONDS
    limits: Limits = field(default_factory=Limits)
    on_failure: OnFailure = "release"
    on_pause: OnPause = "freeze"
    allow_empty: bool = False
    success: str | None = None
    success_seconds: float = SUCCESS_SECONDS
    resume: bool = False
    worktree: Path | None = None
    push: bool = False
    pull_request: bool = False
    redact: Sequence[str] = ()
    lines_per_second: int = LINES_PER_SECOND
    name: str | None = None
