"""One attempt at one lane, from its claim to its end.

    prepare     worktree, files, socket, command            trouble here hands the lane back, and ends the worker
                                                            unless it is this lane's alone
    work        the agent runs under its guard, watched     (`heartlane.worker.watch`)
    judge       what it said, how it went, what it changed, what the success command says
    report      ship_complete, or error and release         nothing is left out: the spool is sent to its end
    clean up    socket, files, worktree

The lease is kept from the first moment to the last by a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from heartlane.client.lease import Lease, Standing
from heartlane.lanes.bounds import RELEASE_REASON_MAX, RETRY_AFTER_SECONDS_MAX
from heartlane.worker.agents import Agent, agent, detect, open_adapter
from heartlane.worker.checking import run_check
from heartlane.worker.child import Child
from heartlane.worker.claims import Claimed
from heartlane.worker.clock import boottime
from heartlane.worker.command_line import filled, values_of
from heartlane.worker.earlier import Earlier
from heartlane.worker.errors import WorkerError
from heartlane.worker.exchange import Exchange
from heartlane.worker.follower import Follower
from heartlane.worker.keeper import Holding, Keeper
from heartlane.worker.lane_facts import default_branch, earlier_attempts
from heartlane.worker.lane_folder import (
    LaneFolder,
    child_environment,
    full_prompt,
    lane_document,
    lane_environment,
)
from heartlane.worker.leave import Leave
from heartlane.worker.options import WorkOptions
from heartlane.worker.places import Places
from heartlane.worker.reader import Reader
from heartlane.worker.reasons import session_is_gone
from heartlane.worker.redact import Redactor
from heartlane.worker.sender import Sender
from heartlane.worker.socket import LaneSocket
from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import Header
from heartlane.worker.starting import Checked, start
from heartlane.worker.status import LaneStatus, Status
from heartlane.worker.telling import Output, Teller, Voice
from heartlane.worker.verdict import TOLD, Kind, Verdict, judge, lost
from heartlane.worker.watch import Watch, Watched
from heartlane.worker.workplace import Workplace, open_workplace

OF_THE_LANE: Final = frozenset({"prompt_unusable", "worktree_in_the_way", "worktree_busy"})
"""Kinds of errors that another lane would not have."""
LOOK_SECONDS: Final = 0.1
STOP_SECONDS_MAX: Final = 10.0
"""How long a worker that was told to stop tries to reach a server that doesn't answer; the spool keeps the rest."""
REST_SECONDS_MAX: Final = 5.0
"""How long a worker that can't go on with a lane sends what it has of it."""
LANE_REST_SECONDS: Final = 60.0
"""What is wrong with a lane itself is so for the next worker too, unless it has some time to pass."""


class Ended(NamedTuple):
    """How an attempt ended.

    kind        abandoned: the server could not be reached for so long that the agent was ended
    message     one line
    reason      of a failure: see `heartlane.worker.reasons`
    retry_at    when the agent can work again, as far as it said so
    trouble     what ends the whole worker: nothing would go better with the next lane
    """

    kind: Kind
    message: str
    reason: str | None = None
    retry_at: datetime | None = None
    trouble: WorkerError | None = None


class Scene(NamedTuple):
    """What one run of the agent happens in. `agent`: what is known of it, None for a command that nobody named."""

    workplace: Workplace
    folder: LaneFolder
    earlier: Earlier
    teller: Teller
    agent: Agent | None


class Attempt:
    """Works one lane; `run` does it all on the thread that calls it.

    stopping    set when the worker is told to stop: the agent is ended, the lane given back
    turn        returns when an agent may be started
    """

    def __init__(
        self,
        exchange: Exchange,
        claimed: Claimed,
        options: WorkOptions,
        places: Places,
        screen: Status,
        *,
        stopping: threading.Event,
        secrets: tuple[str, ...],
        turn: Callable[[], None],
    ) -> None:
        run = claimed.run
        self.run_object = run
        self._exchange = exchange
        self._options = options
        self._places = places
        self._screen = screen
        self._stopping = stopping
        self._secrets = secrets
        self._turn = turn
        self._wake = threading.Event()
        self._child: Child | None = None
        self._sender: Sender | None = None
        self._stopped_at: float | None = None
        self._claimed = claimed
        length = options.lease_seconds
        self._holding = Holding(str(run["id"]), claimed.worker_id, int(run["attempt"]), length)
        lease = Lease(length, claimed.sent_at, options.outage_seconds)
        self._keeper = Keeper(exchange.another(), self._holding, lease, self._on_keeper)
        self._follower = Follower(exchange.another(), self._keeper, int(run.get("event_count") or 0))
        self._lane = LaneStatus(str(run["lane_key"]), self._holding.attempt, options.agent or "")
        self._leave = Leave(self._keeper, self._lane, wake=self._wake, stopping=stopping, check=self._check_threads)
        self._outlived = False

    # --- all of it ------------------------------------------------------------------------------------------------

    def run(self) -> Ended:
        """Work the lane to its end. What nobody foresaw is raised, once the agent is gone and the lane given back."""
        self._screen.begin(self._lane)
        self._screen.say(f"claimed, attempt {self._holding.attempt}: {self.run_object.get('title', '')}", self._lane)
        self._keeper.start()
        self._keeper.ask_now()  # a claim may have waited long before it was granted: have the lease confirmed
        self._follower.start()
        try:
            with self._open_spool() as spool:
                ended = self._with_spool(spool)
            self._screen.say(f"{ended.kind}: {ended.message}", self._lane)
            return ended
        except WorkerError as error:
            return self._hand_back(error, by_lane=error.kind in OF_THE_LANE)
        except BaseException as error:
            # Counted: if it is the lane that does it, it must not go from worker to worker for ever.
            with contextlib.suppress(Exception):
                self._release(f"the worker broke down: {type(error).__name__}: {error}", None, failed=True)
            raise
        finally:
            self._follower.close()
            self._keeper.stop()
            self._screen.end(self._lane)

    def wake(self) -> None:
        """Have it look at once: the worker was told to stop."""
        self._wake.set()

    def _open_spool(self) -> Spool:
        header = Header(self._exchange.url, self._holding.run_id, self._holding.attempt, self._holding.worker_id)
        spool = Spool.open(header, root=self._places.spool, on_trouble=lambda said: self._screen.say(said, self._lane))
        spool.begin()
        spool.resume(self._claimed.last_seq)
        return spool

    def _with_spool(self, spool: Spool) -> Ended:
        environment = dict(os.environ)
        redactor = Redactor(values=self._secrets, env=environment, patterns=self._options.redact)
        teller = Teller(spool, redactor, self._lane, self._options.lines_per_second)
        sender = Sender(self._exchange.another(), spool, self._keeper, self._wake.set)
        self._sender = sender
        sender.start()
        try:
            earlier = earlier_attempts(self._exchange, self.run_object)
            place = open_workplace(
                self._options,
                self.run_object,
                earlier,
                self._places,
                default_branch=default_branch(self._exchange, self.run_object) if self._options.worktree else None,
                note=self._say_note,
            )
            with place as workplace:
                if workplace.branch is not None:
                    # Told at once: the next attempt has to know it however this one ends.
                    teller.tell("log_line", line=f"Works on the branch {workplace.branch}.", branch=workplace.branch)
                verdict = self._work(workplace, earlier, teller)
                ended = self._report(verdict, teller, spool, sender)
                workplace.finish(shipped=ended.kind == "shipped")
            return ended
        except BaseException:
            self._send_rest(spool, sender)
            raise
        finally:
            sender.close(1.0)

    def _send_rest(self, spool: Spool, sender: Sender) -> None:
        """Before a lane that can't be worked is given back: after that the server takes no event of it."""
        sender.hurry()
        ends_at = time.monotonic() + REST_SECONDS_MAX
        while spool.left and not sender.done and time.monotonic() < ends_at:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
        if not spool.left:
            spool.remove()

    # --- prepare --------------------------------------------------------------------------------------------------

    def _agent(self) -> Agent | None:
        name = self._options.agent or detect(self._options.command)
        return None if name is None else agent(name)

    def _command(self, known: Agent | None, session_id: str | None) -> list[str]:
        """The agent's words, with placeholders. Raises WorkerError."""
        words = list(self._options.command)
        if not words:
            if known is None or known.command is None:
                named = self._options.agent or "none"
                raise WorkerError(f"no command is given, and the agent {named!r} has none of its own", "wrong_input")
            words = list(known.command)
        if session_id and known is not None and not self._options.shell:
            return known.resumed(words, session_id) or words
        return words

    # --- work -----------------------------------------------------------------------------------------------------

    def _work(self, workplace: Workplace, earlier: Earlier, teller: Teller) -> Verdict:
        """Run the agent, once more without its old session where that is gone, and judge it. Raises WorkerError."""
        known = self._agent()
        same = known is not None and earlier.agent in (None, known.name)
        session_id = earlier.session_id if self._options.resume and same else None
        with LaneFolder.create(self._places.lanes, self.run_object) as folder:
            scene = Scene(workplace, folder, earlier, teller, known)
            verdict = self._run_agent(scene, session_id)
            if session_id and not verdict.success and session_is_gone(verdict.message):
                teller.tell("log_line", line=f"The session {session_id} is gone; a new one is begun.")
                verdict = self._run_agent(scene, None)
        return verdict

    def _run_agent(self, scene: Scene, session_id: str | None) -> Verdict:
        branch, folder = scene.workplace.branch, scene.folder
        prompt = full_prompt(self.run_object, scene.earlier)
        document = lane_document(self.run_object, scene.earlier, branch=branch, prompt_file=str(folder.prompt_file))
        folder.write(prompt, document)
        values = values_of(self.run_object, prompt=prompt, prompt_file=str(folder.prompt_file), branch=branch)
        argv = filled(self._command(scene.agent, session_id), values, by_shell=self._options.shell)
        self._turn()
        voice = Voice(scene.teller, document, lambda: folder.rewrite(voice.lane()))
        with LaneSocket(voice, folder.path) as lane_socket:
            environment = self._environment(scene, lane_socket.path)
            begun = self._leave.begin(lambda: self._watch(argv, environment, scene, voice))
        if isinstance(begun, Verdict):
            return begun
        output, watched = begun
        if watched.cause in ("lost", "outage"):
            return lost(self._keeper.loss)
        if watched.cause == "told":
            return TOLD

        def check() -> Checked:
            self._lane.state = "checking"
            return run_check(
                self._options.success or "true",
                environment,
                scene.workplace.cwd,
                teller=scene.teller,
                keeper=self._keeper,
                leave=self._leave,
                outlive=lambda child: self._outlive(child, scene.teller),
                stopping=self._stopping,
                seconds_max=self._options.success_seconds,
            )

        return judge(
            adapter=output.adapter,
            watched=watched,
            voice=voice,
            workplace=scene.workplace,
            options=self._options,
            run=self.run_object,
            check=check,
            refused=self._leave.wait,
        )

    def _environment(self, scene: Scene, socket: Path) -> dict[str, str]:
        variables = lane_environment(
            self.run_object,
            scene.earlier,
            worker_id=self._holding.worker_id,
            folder=scene.folder,
            branch=scene.workplace.branch,
            socket=socket,
        )
        environment = child_environment(os.environ, variables, self._secrets)
        for name, value in (scene.agent.environment if scene.agent is not None else {}).items():
            environment.setdefault(name, value)
        return scene.folder.with_command(environment)

    def _watch(
        self, argv: list[str], environment: Mapping[str, str], scene: Scene, voice: Voice
    ) -> tuple[Output, Watched]:
        adapter = open_adapter(None if scene.agent is None else scene.agent.name)
        output = Output(adapter, scene.teller, datetime.now().astimezone())
        self._lane.agent = output.adapter.name
        child = start(argv, environment, scene.workplace.cwd, self._keeper.lease.ends_at, self._wake)
        self._child = child
        self._on_keeper()  # whatever was confirmed between the two lines
        try:
            with child, Reader(child.stdout, child.stderr, output.on_lines) as reader:
                watch = Watch(
                    child=child,
                    output=output,
                    voice=voice,
                    teller=scene.teller,
                    keeper=self._keeper,
                    options=self._options,
                    status=self._lane,
                    wake=self._wake,
                    stopping=self._stopping,
                    say=self._say_note,
                    check=self._check_threads,
                )
                watched = watch.run(reader)
                if not watched.gone:
                    self._outlive(child, scene.teller)
        finally:
            self._child = None
        if reader.held_seconds > 1:
            said = f"It was held up for {reader.held_seconds:.0f} s in all: it printed faster than could be kept."
            scene.teller.tell("log_line", line=said)
        return output, watched

    def _outlive(self, child: Child, teller: Teller) -> bool:
        """Wait until what can't be ended of a tree is gone; said here, and in the run's log."""

        def say(said: str) -> None:
            self._say_note(said)
            teller.tell("log_line", line=f"The worker says: {said}.")

        self._outlived = not self._leave.outlive(child, say, self._patient)
        return not self._outlived

    def _check_threads(self) -> None:
        """Raise what ended the keeper's or the sender's thread: it must not end with them in silence."""
        for thread in (self._keeper, self._sender):
            if thread is not None and thread.fault is not None:
                raise thread.fault

    def _on_keeper(self) -> None:
        """The lease, the directive or the claim changed: the guard hears of a new deadline before anybody else."""
        child = self._child
        if child is not None and self._keeper.loss is None:
            child.set_deadline(self._keeper.lease.ends_at)
        self._wake.set()

    # --- report ---------------------------------------------------------------------------------------------------

    def _report(self, verdict: Verdict, teller: Teller, spool: Spool, sender: Sender) -> Ended:
        """Tell how it ended, and wait until the server knows."""
        if verdict.kind in ("lost", "abandoned"):
            if verdict.kind == "lost" and verdict.code == "RUN_FINISHED":
                spool.remove()
            return Ended(verdict.kind, verdict.message)
        self._lane.state = "reporting"
        if verdict.event is not None:
            kind, payload = verdict.event
            teller.tell(kind, **payload)
        if verdict.ends_run:
            # Nothing may come after the last event. From here on the report that carries it renews the lease.
            self._keeper.stand_down()
        sender.hurry()
        while spool.left and not sender.done and self._keeper.standing() is not Standing.GONE and self._patient():
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
        if spool.left:
            self._check_threads()
            loss = self._keeper.loss
            message = loss.message if loss is not None else "the server could not be reached; the spool keeps the rest"
            return Ended("lost" if loss is not None else "abandoned", message, verdict.reason, verdict.retry_at)
        if not verdict.ends_run:
            rest = verdict.retry_after(datetime.now(UTC))
            if self._outlived:  # as if its lease went on, without the failure
                rest = max(rest or 0.0, float(self._holding.lease_seconds))
            self._release(verdict.message, rest, failed=verdict.counts)
        spool.remove()
        return Ended(verdict.kind, verdict.message, verdict.reason, verdict.retry_at)

    def _release(self, reason: str, retry_after: float | None, *, failed: bool) -> None:
        """Give the lane back; where the server can't be reached, its lease runs out instead."""
        body: dict[str, Any] = {
            "worker_id": self._holding.worker_id,
            "attempt": self._holding.attempt,
            "reason": reason[:RELEASE_REASON_MAX],
            "failed": failed,
        }
        if retry_after:
            body["retry_after"] = min(retry_after, RETRY_AFTER_SECONDS_MAX)
        self._keeper.stand_down()
        tries = 0
        ends_at = boottime() + self._holding.lease_seconds
        while True:
            reply = self._exchange.post(f"{self._holding.path}/release", body)
            if reply.ok or reply.status in (400, 409) or boottime() > ends_at or not self._patient():
                return
            tries += 1
            time.sleep(self._keeper.retry_delay(tries, reply))

    def _patient(self) -> bool:
        """Whether to wait any longer for the server: whoever stops a worker doesn't wait for an outage to end."""
        if not self._stopping.is_set():
            return True
        self._stopped_at = self._stopped_at or boottime()
        return boottime() < self._stopped_at + STOP_SECONDS_MAX

    def _hand_back(self, error: WorkerError, *, by_lane: bool) -> Ended:
        """It can't be done here: give the lane back, and say why.

        by_lane     whether the lane itself is the cause: then it rests for a while, so that it doesn't busy one worker
                    after the other; else it is the worker's trouble, and would be with any lane

        Counted as a failure only where no patience mends it.
        """
        rest = LANE_REST_SECONDS if by_lane else None
        with contextlib.suppress(Exception):
            self._release(f"the worker could not begin: {error}", rest, failed=error.kind == "prompt_unusable")
        self._screen.say(f"handed back: {error}", self._lane)
        return Ended("released", str(error), trouble=None if by_lane and not self._options.once else error)

    def _say_note(self, note: str) -> None:
        self._screen.say(note, self._lane)
