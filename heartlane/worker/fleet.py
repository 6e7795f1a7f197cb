"""One worker process: claims lanes and works them, several at once, until it is told to stop.

Each slot claims by long poll, works one lane (`heartlane.worker.attempt`), and claims the next. A worker's id is unique
to its process and slot, so that a worker that was started again is another worker. A claim whose answer was lost may
have been granted all the same, or be granted yet, for as long as it would have waited: until then the slot claims
nothing else, but asks whether it holds something, and takes that up.

An agent out of quota, or not logged in, isn't given any lane until it can work again: all slots that would use it rest.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from heartlane.worker.agents import Agent, agent
from heartlane.worker.agents.detect import program_of
from heartlane.worker.attempt import Attempt, Claimed, Ended
from heartlane.worker.clock import boottime
from heartlane.worker.doctor.agent import is_logged_out
from heartlane.worker.errors import Kind, WorkerError
from heartlane.worker.exchange import Exchange, Reply
from heartlane.worker.limits import spoken
from heartlane.worker.options import WorkOptions
from heartlane.worker.places import Places
from heartlane.worker.status import Status
from heartlane.worker.verdict import rest_seconds

CLAIM_PATH: Final = "/api/agents/runs/claim"
SLACK_SECONDS: Final = 10.0
"""How much longer than its long poll a claim waits for the answer."""
LATE_SECONDS: Final = 2.0
"""How long after its long poll a claim whose answer was lost may still be granted."""
LOOK_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 15.0
STAGGER_SECONDS: Final = 1.0
"""Between two starts of agents: those that start together race for their login's refresh."""
AUTH_REST_SECONDS: Final = 60.0
AUTH_REST_SECONDS_MAX: Final = 900.0
LOGIN_CHECK_SECONDS: Final = 5.0
"""Between two looks at whether an agent is logged in by now."""
STRANGE_TRIES: Final = 3
"""So often in a row the first claim may get an answer that isn't Heartlane's before the address is taken for wrong."""


def check_program(options: WorkOptions) -> None:
    """Raise the WorkerError of a command that can't be started, before any lane is claimed for it."""
    words = options.command or (agent(options.agent).command if options.agent else None) or ()
    if options.shell or not words:
        return
    program = words[0]
    if shutil.which(program) is not None:
        return
    if os.sep in program and Path(program).exists():
        raise WorkerError(f"{program} can't be executed: is it a program, and executable?", "not_executable")
    raise WorkerError(f"command not found: {program}: install it, or correct the command", "command_not_found")


class Rest:
    """When agents may be given lanes again. For several threads.

    auth_seconds    after a first failure to log in; each further one doubles it
    """

    def __init__(self, auth_seconds: float) -> None:
        self._auth_seconds = auth_seconds
        self._lock = threading.Lock()
        self._until = 0.0
        self._auth_failures = 0
        self.login_in_doubt = False
        """Whether an agent said that it isn't logged in, and nothing has gone well since."""

    def after(self, ended: Ended) -> float | None:
        """Take in how a lane ended; seconds for which to rest, or None to go on."""
        with self._lock:
            if ended.reason in ("usage_limit", "rate_limit"):
                seconds = rest_seconds(ended.reason, ended.retry_at, datetime.now(UTC))
            elif ended.reason == "auth":
                seconds = min(self._auth_seconds * 2.0 ** min(self._auth_failures, 20), AUTH_REST_SECONDS_MAX)
                self._auth_failures += 1
                self.login_in_doubt = True
            else:
                if ended.kind == "shipped":
                    self._auth_failures = 0
                    self.login_in_doubt = False
                return None
            self._until = max(self._until, boottime() + seconds)
            return seconds

    def again(self, seconds: float) -> None:
        """Rest some more."""
        with self._lock:
            self._until = max(self._until, boottime() + seconds)

    @property
    def left(self) -> float:
        """Seconds until lanes are claimed again."""
        return max(0.0, self._until - boottime())


class Fleet:
    """The slots of one worker process.

    secret_values   what must never be told: the token
    """

    def __init__(
        self, exchange: Exchange, options: WorkOptions, places: Places, screen: Status, secret_values: tuple[str, ...]
    ) -> None:
        self._exchange = exchange
        self._options = options
        self._places = places
        self._screen = screen
        self._secrets = secret_values
        self._id = f"{options.name or socket.gethostname()}:{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._draining = threading.Event()
        # Its own check keeps an agent that can be asked from burning lanes: no need to wait long before that.
        self._rest = Rest(LOGIN_CHECK_SECONDS if self._login_check() is not None else AUTH_REST_SECONDS)
        self._starts = threading.Lock()
        self._trouble: BaseException | None = None
        self._last: Ended | None = None
        self._claiming: set[Exchange] = set()
        self._heard = threading.Event()
        self._logged_out = False

    def stop(self) -> None:
        """End the agents and give their lanes back. Safe in a signal handler, and to repeat."""
        self._stopping.set()
        self.drain()

    def drain(self) -> None:
        """Finish the lanes under way, and claim no more. Safe in a signal handler."""
        self._draining.set()
        for exchange in tuple(self._claiming):
            exchange.cut()

    def run(self) -> Ended | None:
        """Work until drained or stopped; how the last lane ended, None where there was none.

        Raises WorkerError for what no further lane would go better with, and whatever nobody foresaw; the lanes under
        way were ended in good order.
        """
        slots = [
            threading.Thread(target=self._slot, args=(number,), name=f"heartlane-slot-{number}")
            for number in range(1 if self._options.once else self._options.parallel)
        ]
        for slot in slots:
            slot.start()
        said = False
        for slot in slots:
            # Joined in short turns: a signal's handler runs between them.
            while slot.is_alive():
                slot.join(0.5)
                if self._stopping.is_set() and not said:
                    said = True
                    self._screen.say("stopping: the agents are ended, their lanes given back (Ctrl-C again: at once)")
                if self._draining.is_set():
                    self.drain()  # again: a claim may have been on its way to the server, with nothing to cut yet
        if self._trouble is not None:
            raise self._trouble
        return self._last

    # --- one slot -------------------------------------------------------------------------------------------------

    def _slot(self, number: int) -> None:
        worker_id = self._id if self._options.parallel == 1 else f"{self._id}/{number + 1}"
        with self._exchange.another() as exchange:
            try:
                while not self._draining.is_set():
                    claimed = self._claim(exchange, worker_id)
                    if claimed is not None:
                        self._work(exchange, claimed)
                        if self._options.once:
                            return
            except BaseException as error:  # noqa: BLE001 - raised again by `run`: a slot never ends in silence
                self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if self._trouble is None:
            self._trouble = error
        self.stop()

    def _work(self, exchange: Exchange, claimed: Claimed) -> None:
        attempt = Attempt(
            exchange,
            claimed,
            self._options,
            self._places,
            self._screen,
            stopping=self._stopping,
            secrets=self._secrets,
            turn=self._stagger,
        )
        ended = attempt.run()
        self._last = ended
        if ended.trouble is not None:
            raise ended.trouble
        seconds = self._rest.after(ended)
        if seconds is not None:
            why = {"auth": "the agent is not logged in (see `heartlane doctor`)"}.get(
                ended.reason or "", f"the agent has reached its {str(ended.reason).replace('_', ' ')}"
            )
            self._screen.say(f"{why}: no lane is claimed for {spoken(seconds)}")

    def _stagger(self) -> None:
        """Wait for one's turn to start an agent. The lease is kept meanwhile: in a large fleet that takes a minute."""
        if self._options.parallel > 1:
            with self._starts:
                self._stopping.wait(STAGGER_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    # --- claims ---------------------------------------------------------------------------------------------------

    def _claim(self, exchange: Exchange, worker_id: str) -> Claimed | None:
        """The next lane; None when the worker is to claim no more. Raises WorkerError."""
        tries = 0
        doubt_until: float | None = None
        while not self._draining.is_set():
            if self._rest.left:
                self._draining.wait(min(1.0, self._rest.left))
                continue
            if self._rest.login_in_doubt and self._is_logged_out():
                continue
            if doubt_until is not None:
                found, trouble = self._held_already(exchange, worker_id)
                if found is not None:
                    return found
                if trouble is not None:
                    tries += 1
                    self._complain(trouble, tries)
                    self._pause(tries, trouble)
                    continue
                if boottime() < doubt_until:
                    self._draining.wait(LOOK_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                    continue
                doubt_until = None
            sent_at = boottime()
            wait = self._poll_seconds()
            reply = self._ask_for_lane(exchange, worker_id, wait)
            if reply.ok:
                self._welcome()
                tries = 0
                run = reply.body.get("run")
                if isinstance(run, Mapping):
                    return _claimed(run, reply, sent_at, worker_id)
                continue
            if reply.doubtful:
                # An answer of the server's own says that it is done with the claim, whatever came of it.
                doubt_until = boottime() if reply.code is not None else sent_at + wait + LATE_SECONDS
            if self._draining.is_set():
                break
            tries += 1
            self._complain(reply, tries)
            self._pause(tries, reply)
        # The claim that was cut off may have been granted in the same moment.
        for _ in range(3 if doubt_until is not None and self._heard.is_set() else 0):
            found, trouble = self._held_already(exchange, worker_id)
            if found is not None or trouble is None:
                return found
        return None

    def _login_check(self) -> Agent | None:
        """The agent, if it is known and can be asked whether it is logged in."""
        name = self._options.agent or program_of(self._options.command)
        known = None if name is None else agent(name)
        return known if known is not None and known.login.check is not None else None

    def _is_logged_out(self) -> bool:
        """Ask the agent's own check, where it has one, before another lane is spent on it; rests where it says no."""
        known = self._login_check()
        with self._starts:
            if self._rest.left:
                return True  # another slot has asked
            if known is None or not is_logged_out(known):
                self._rest.login_in_doubt = self._logged_out = False
                return False
            self._rest.again(LOGIN_CHECK_SECONDS)
        if not self._logged_out:
            self._screen.say(
                f"{known.title} is still not logged in: no lane is claimed until it is (see `heartlane doctor`)"
            )
            self._logged_out = True
        return True

    def _pause(self, tries: int, reply: Reply) -> None:
        wait = min(RETRY_SECONDS_MAX, 0.25 * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._draining.wait(max(wait, min(reply.retry_after or 0.0, 60.0)))

    def _poll_seconds(self) -> float:
        """How long the next claim waits: not so long that its lease, which counts from its begin, is half over.

        The first one doesn't wait at all: whoever started the worker wants to know that it works.
        """
        return min(self._options.wait_seconds, self._options.lease_seconds / 3) if self._heard.is_set() else 0.0

    def _ask_for_lane(self, exchange: Exchange, worker_id: str, wait: float) -> Reply:
        self._claiming.add(exchange)
        try:
            if self._draining.is_set():  # told just now, before `drain` could see us
                return Reply(None, {}, "the worker was told to stop", sent=False)
            return exchange.post(CLAIM_PATH, {**self._wanted(worker_id), "wait_seconds": wait}, wait + SLACK_SECONDS)
        finally:
            self._claiming.discard(exchange)

    def _held_already(self, exchange: Exchange, worker_id: str) -> tuple[Claimed | None, Reply | None]:
        """A lane that an unanswered claim was granted; None, and the answer that leaves it open if there is one."""
        listed = exchange.get("/api/agents/runs", {"worker_id": worker_id, "state": "claimed", "limit": 1})
        if not listed.ok:
            return None, listed
        for run in listed.body.get("runs", ()):
            sent_at = boottime()
            body = {"worker_id": worker_id, "lease_seconds": self._options.lease_seconds}
            reply = exchange.post(f"/api/agents/runs/{run['id']}/claim", body)
            if reply.ok and isinstance(reply.body.get("run"), Mapping):
                return _claimed(reply.body["run"], reply, sent_at, worker_id), None
            gone = reply.status in (404, 409) and reply.code is not None
            return None, None if gone else reply
        return None, None

    def _wanted(self, worker_id: str) -> dict[str, Any]:
        options = self._options
        wanted: dict[str, Any] = {
            "worker_id": worker_id,
            "lease_seconds": options.lease_seconds,
            "roles": list(options.roles),
            "labels": dict(options.labels),
        }
        if options.project_id is not None:
            wanted["project_id"] = options.project_id
        return wanted

    def _welcome(self) -> None:
        if not self._heard.is_set():
            self._heard.set()
            self._screen.say(f"connected to {self._exchange.url}; waiting for lanes")

    def _complain(self, reply: Reply, tries: int) -> None:
        """Say what is wrong. Until the server has been heard once, what patience doesn't mend ends the worker.

        What isn't Heartlane's answer (a proxy's page) never ends a worker that has heard its server before; nor does a
        429 or 5xx before that.
        """
        kind: Kind = reply.kind
        if reply.status in (400, 404) and reply.code is not None:
            raise WorkerError(f"the server refuses the claim: {reply.problem}", "wrong_input")
        strange = kind == "not_heartlane" and reply.status != 429 and (reply.status or 0) < 500
        hopeless = kind == "tls_fault" or (strange and tries >= STRANGE_TRIES)
        if kind == "token_refused" or (hopeless and not self._heard.is_set()):
            raise WorkerError(reply.problem, kind)
        self._screen.say(f"{reply.problem}; trying again")


def _claimed(run: Mapping[str, Any], reply: Reply, sent_at: float, worker_id: str) -> Claimed:
    last_seq = reply.body.get("last_seq")
    return Claimed(run, last_seq if isinstance(last_seq, int) else 0, sent_at, worker_id)
