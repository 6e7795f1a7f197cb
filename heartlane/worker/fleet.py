"""One worker process: claims lanes and works them, several at once, until it is told to stop.

Each slot claims by long poll, works one lane (`heartlane.worker.attempt`), and claims the next. A worker's id is unique
to its process and slot, so that a worker that was started again is another worker. What a slot is granted without
hearing of it (an answer that was lost, a claim that arrived twice) is what its next claim gets: see
`heartlane.worker.claims`.

An agent out of quota, or not logged in, isn't given any lane until it can work again: all slots that would use it rest.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from heartlane.worker.agents import Agent, agent
from heartlane.worker.agents.detect import program_of
from heartlane.worker.attempt import Attempt, Ended
from heartlane.worker.claims import Claimed, Claims
from heartlane.worker.clock import boottime
from heartlane.worker.contact import Contact
from heartlane.worker.doctor.agent import is_logged_out
from heartlane.worker.errors import WorkerError
from heartlane.worker.exchange import Exchange, Reply
from heartlane.worker.leftovers import flush
from heartlane.worker.limits import spoken
from heartlane.worker.options import WorkOptions
from heartlane.worker.places import Places
from heartlane.worker.spool_files import Header, SpoolError
from heartlane.worker.status import Status
from heartlane.worker.verdict import rest_seconds

LATE_SECONDS: Final = 2.0
"""How long after its long poll a claim whose answer was lost may still be granted."""
LOOK_SECONDS: Final = 1.0
"""How long a claim waits as long as one before it may be granted, which would be this one's answer at its begin."""
RETRY_SECONDS_MAX: Final = 15.0
PASS_ON_TRIES: Final = 3
"""How often a worker that is to claim no more tries to give a lane back that it won't work."""
STAGGER_SECONDS: Final = 1.0
"""Between two starts of agents: those that start together race for their login's refresh."""
AUTH_REST_SECONDS: Final = 60.0
AUTH_REST_SECONDS_MAX: Final = 900.0
LOGIN_CHECK_SECONDS: Final = 5.0
"""Between two looks at whether an agent is logged in by now."""


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
    on_reached      called once the server has answered a claim, on a thread of its own
    """

    def __init__(
        self,
        exchange: Exchange,
        options: WorkOptions,
        places: Places,
        screen: Status,
        *,
        secret_values: tuple[str, ...],
        on_reached: Callable[[], object] | None = None,
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
        self._claiming: set[Claims] = set()
        self._logged_out = False
        self._contact = Contact(
            exchange.url,
            screen,
            patience=options.reach_seconds,
            on_reached=lambda: None if on_reached is None else _aside(on_reached),
        )

    def stop(self) -> None:
        """End the agents and give their lanes back. Safe in a signal handler, and to repeat."""
        self._stopping.set()
        self.drain()

    def drain(self) -> None:
        """Finish the lanes under way, and claim no more. Safe in a signal handler."""
        self._draining.set()
        for claims in tuple(self._claiming):
            claims.cut()

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
                    if self._trouble is None:
                        self._screen.say(
                            "stopping: the agents are ended, their lanes given back (Ctrl-C again: at once)"
                        )
                    elif self._screen.has_lanes:  # what the trouble is stands in the last line of all
                        self._screen.say("stopping: the other agents are ended, their lanes given back")
                if self._draining.is_set():
                    self.drain()  # again: a claim may have been on its way to the server, with nothing to cut yet
        if self._trouble is not None:
            raise self._trouble
        return self._last

    # --- one slot -------------------------------------------------------------------------------------------------

    def _slot(self, number: int) -> None:
        worker_id = self._id if self._options.parallel == 1 else f"{self._id}/{number + 1}"
        worked: tuple[str, int] | None = None
        with self._exchange.another() as exchange:
            claims = Claims(exchange, self._options, worker_id)
            try:
                while not self._draining.is_set():
                    claimed = self._claim(claims)
                    if claimed is None:
                        continue
                    if claimed.attempt == worked:
                        self._give_back(exchange, claimed)
                        continue
                    if self._is_at_rest():
                        self._pass_on(exchange, claimed)
                        continue
                    self._work(exchange, claimed)
                    worked = claimed.attempt
                    if self._options.once:
                        return
            except BaseException as error:  # noqa: BLE001 - raised again by `run`: a slot never ends in silence
                self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if self._trouble is None:
            self._trouble = error
        self.stop()

    def _give_back(self, exchange: Exchange, claimed: Claimed) -> None:
        """An attempt that has ended here while the server could not be told is not begun again: what is left of it is
        sent, and the lane given back."""
        run_id, attempt = claimed.attempt
        left = Header(exchange.url, run_id, attempt, claimed.worker_id)
        try:
            sent = flush(exchange, left, self._places, reason="the server could not be reached for too long")
        except SpoolError as error:
            self._screen.say(f"{claimed.run['lane_key']}: {error}")
            sent = None
        if sent is None:
            self._draining.wait(RETRY_SECONDS_MAX)
        else:
            self._screen.say(f"{claimed.run['lane_key']}: given back, after {sent} events that were left of it")

    def _pass_on(self, exchange: Exchange, claimed: Claimed) -> None:
        """A lane that was granted to a claim which waited since before the agent had to rest is others' to work."""
        run_id, attempt = claimed.attempt
        body = {
            "worker_id": claimed.worker_id,
            "attempt": attempt,
            "reason": "the worker's agent can't work now",
            "failed": False,
        }
        ends_at = claimed.sent_at + self._options.lease_seconds
        tries = 0
        while boottime() < ends_at and not (self._draining.is_set() and tries >= PASS_ON_TRIES):
            reply = exchange.post(f"/api/agents/runs/{run_id}/release", body)
            if reply.ok or (reply.code is not None and reply.status in (400, 404, 409)):
                break
            tries += 1
            self._pause(tries, reply)
        self._screen.say(f"{claimed.run['lane_key']}: given back unworked, as the agent rests")

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

    def _claim(self, claims: Claims) -> Claimed | None:
        """The next lane; None when the worker is to claim no more. Raises WorkerError."""
        tries = 0
        doubt_until = 0.0  # so long a claim whose answer was lost may be granted
        while not self._draining.is_set():
            if self._rest.left:
                self._draining.wait(min(1.0, self._rest.left))
                continue
            if self._rest.login_in_doubt and self._is_logged_out():
                continue
            asked_at, wait = boottime(), self._poll_seconds()
            if asked_at < doubt_until:
                wait = min(wait, LOOK_SECONDS)
            claimed, reply = self._ask_for_lane(claims, wait)
            if reply.ok:
                self._contact.well()
                tries = 0
                if claimed is not None:
                    return claimed
                continue
            if reply.doubtful:
                # An answer of the server's own says that it is done with the claim, whatever came of it.
                late = 0.0 if reply.code is not None else wait
                doubt_until = max(doubt_until, asked_at + late + LATE_SECONDS)
            if self._draining.is_set():
                break
            tries += 1
            self._contact.trouble(reply, tries)
            self._pause(tries, reply)
        # The claim that was cut off may have been granted in the same moment.
        for _ in range(3 if boottime() < doubt_until and self._contact.reached else 0):
            found, trouble = claims.held()
            if found is not None or trouble is None:
                return found
        return None

    def _is_at_rest(self) -> bool:
        """Whether the agent can be given no lane now."""
        return self._rest.left > 0 or (self._rest.login_in_doubt and self._is_logged_out())

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
        wait = min(RETRY_SECONDS_MAX, 0.25 * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._draining.wait(max(wait, min(reply.retry_after or 0.0, 60.0)))

    def _poll_seconds(self) -> float:
        """How long the next claim waits: not so long that its lease, which counts from its begin, is half over.

        The first one doesn't wait at all: whoever started the worker wants to know that it works.
        """
        return min(self._options.wait_seconds, self._options.lease_seconds / 3) if self._contact.reached else 0.0

    def _ask_for_lane(self, claims: Claims, wait: float) -> tuple[Claimed | None, Reply]:
        self._claiming.add(claims)
        try:
            if self._draining.is_set():  # told just now, before `drain` could see us
                return None, Reply(None, {}, "the worker was told to stop", sent=False)
            return claims.next(wait)
        finally:
            self._claiming.discard(claims)


def _aside(do: Callable[[], object]) -> None:
    """Do it on a thread of its own: nobody waits for it."""
    threading.Thread(target=do, name="heartlane-aside", daemon=True).start()
