"""What workers that were killed left: processes, events that weren't sent, folders. Seen to when a worker starts.

Events of an attempt that still holds its lane are sent, and the lane is given back at once, so that nobody waits for a
dead worker's lease. Before that whatever still runs of the attempt is killed: its guard does that too, but may be late.
Where the claim is gone the server takes the events no more: they stay for `heartlane spool`, for a week.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Final

from heartlane.client.lease import Meaning
from heartlane.wire.variables import PREFIX
from heartlane.worker.control_groups import end, left_over
from heartlane.worker.errors import WorkerError
from heartlane.worker.exchange import Exchange
from heartlane.worker.lane_folder import sweep
from heartlane.worker.places import Places
from heartlane.worker.repository import Repository
from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import Header, SpoolError
from heartlane.worker.spools import discard, list_spools
from heartlane.worker.status import Status
from heartlane.worker.tree import sweep_bearing
from heartlane.worker.worktree_end import mark_of, prune

KEPT_SECONDS: Final = 7 * 86_400.0
TRIES: Final = 3
SWEEP_SECONDS_MAX: Final = 5.0
SPOOLS_MAX: Final = 200
"""Looked at when a worker starts."""
LAST_LEASE_SECONDS: Final = 5
ENDED_STATES: Final = frozenset({"shipped", "failed"})


def take_care(exchange: Exchange, places: Places, screen: Status, repository: Repository | None = None) -> bool:
    """Send what can be sent, give back what is held, remove what is of no use any more, the repository's worktrees too.

    False where that needs the server, which can't be reached: to be done again when it can.
    """
    end_processes(screen)
    with contextlib.suppress(OSError):
        sweep(places.lanes)
    if not _send_spools(exchange, places, screen) or not _prune_worktrees(exchange, repository, places, screen):
        screen.say("what earlier workers left is seen to when the server can be reached")
        return False
    return True


def end_processes(screen: Status) -> None:
    """Kill what is left in the control groups of workers that were killed together with their guards."""
    for group in left_over():
        if left := end(group, SWEEP_SECONDS_MAX):
            screen.say(f"{left} processes that a killed worker left can't be ended: {sorted(group.members())}")


def _send_spools(exchange: Exchange, places: Places, screen: Status) -> bool:
    reached = False
    for info in list_spools(places.spool)[:SPOOLS_MAX]:
        if info.problem is not None:
            screen.say(info.problem)
        if info.busy or info.header is None:
            continue
        if info.header.server == exchange.url and not reached:
            if exchange.get("/healthz").status is None:
                return False
            reached = True
        with contextlib.suppress(SpoolError, OSError):
            # A worker that ends a lane in good order removes its spool: one that is there was left by a killed worker.
            old = time.time() - info.folder.stat().st_mtime > KEPT_SECONDS
            sent = flush(exchange, info.header, places) if info.header.server == exchange.url else None
            if sent is not None:
                screen.say(f"an earlier worker was killed: {sent} events that it left were sent, its lane given back")
            elif old:
                discard(info.folder)
    return True


def _prune_worktrees(exchange: Exchange, repository: Repository | None, places: Places, screen: Status) -> bool:
    """Remove the worktrees of lanes that have ended, unless something would be lost. Nobody waits for it to go well."""
    if repository is None:
        return True
    try:
        runs = {mark_of(entry.path) for entry in repository.entries()[1:]} - {None}
        if runs and exchange.get("/healthz").status is None:
            return False
        unfinished = [str(run) for run in runs if not _has_ended(exchange, str(run))]
        for swept in prune(repository, places.worktrees, unfinished):
            if swept.kept is None:
                screen.say(f"removed {swept.path}: its lane has ended")
    except (WorkerError, OSError) as error:
        screen.say(f"old worktrees were not looked at: {error}")
    return True


def _has_ended(exchange: Exchange, run_id: str) -> bool:
    """Whether the server says so: of a run that it doesn't know, another server's say, nothing is removed."""
    run = exchange.get(f"/api/agents/runs/{run_id}").body.get("run")
    return isinstance(run, Mapping) and run.get("state") in ENDED_STATES


def flush(exchange: Exchange, header: Header, places: Places, *, reason: str = "the worker was killed") -> int | None:
    """Send all of one spool and give its lane back; how many events. None where the server takes them no more (now).

    reason  why it is given back, for the run's log

    Raises SpoolError.
    """
    path = f"/api/agents/runs/{header.run}"
    who = {"worker_id": header.worker, "attempt": header.attempt}
    sent = 0
    with Spool.open(header, root=places.spool) as spool:
        tries = 0
        while (batch := spool.next_batch()) is not None:
            body = {**who, "lease_seconds": LAST_LEASE_SECONDS, "seq": batch.seq, "events": batch.decoded()}
            reply = exchange.post(f"{path}/events", body)
            means = reply.meaning
            if means in (Meaning.KEEP, Meaning.PAUSE, Meaning.STOP):
                spool.acknowledge(batch.seq)
                sent += len(batch.events)
            elif means is Meaning.REFUSED and reply.code is not None:
                # The server's own word: a proxy's says nothing about a batch that may have arrived before.
                spool.refused(batch.seq)
            elif means is Meaning.LOST or (tries := tries + 1) >= TRIES:
                return None
        if sweep_bearing(
            f"{PREFIX}RUN_ID={header.run}", f"{PREFIX}ATTEMPT={header.attempt}", seconds=SWEEP_SECONDS_MAX
        ):
            return None  # what can't be killed holds the lane for as long as its lease goes on
        exchange.post(f"{path}/release", {**who, "reason": reason, "failed": False})
        spool.remove()
    return sent
