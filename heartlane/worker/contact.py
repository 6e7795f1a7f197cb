"""How a worker stands with its server when it claims, and what people are told of that.

not reached yet     tried for some seconds, or as long as it takes (`--wait-for-server`); what no patience mends (a
                    token, a certificate, another program at the address) ends the worker before
reached             it goes on trying, whatever comes
in trouble          said at once, then ever more rarely for as long as it lasts, and again when it is over
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from heartlane.worker.clock import boottime
from heartlane.worker.errors import Kind, WorkerError
from heartlane.worker.exchange import Reply
from heartlane.worker.limits import spoken
from heartlane.worker.status import Status

STRANGE_TRIES: Final = 3
"""So often in a row the first claim may get an answer that isn't Heartlane's before the address is taken for wrong."""
CURES: Final[Mapping[Kind, str]] = {
    "token_refused": "Make one with `heartlane token create NAME --scope worker`, and set HEARTLANE_TOKEN.",
    "tls_fault": "Correct the host in HEARTLANE_URL, or its certificate; --ca names an authority of your own.",
    "not_heartlane": "Correct HEARTLANE_URL: the address of the server, without /api at its end.",
}
"""What to do about what ends a worker at its first claim."""
SAY_SECONDS_MIN: Final = 15.0
"""Between two lines about the server, however often it comes and goes."""
REMIND_SECONDS: Final = 60.0
REMIND_SECONDS_MAX: Final = 1800.0


class Contact:
    """Of all slots of one worker, for several threads.

    patience    seconds for which a server is tried that was never reached; None: for as long as it takes
    on_reached  called once, when the server has answered a claim for the first time
    """

    def __init__(
        self,
        url: str,
        screen: Status,
        *,
        patience: float | None,
        on_reached: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._url = url
        self._screen = screen
        self._patience = patience
        self._on_reached = on_reached
        self._clock = clock
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._since: float | None = None
        self._said = ""
        self._said_at = float("-inf")
        self._remind_at = 0.0
        self._remind_seconds = REMIND_SECONDS

    @property
    def reached(self) -> bool:
        """Whether the server has answered a claim."""
        return self._reached.is_set()

    def well(self) -> None:
        """A claim was answered."""
        with self._lock:
            first = not self._reached.is_set()
            self._reached.set()
            since, said, self._since, self._said = self._since, self._said, None, ""
        if first:
            self._screen.say(f"connected to {self._url}; waiting for lanes")
            self._on_reached()
        elif since is not None and said:
            self._screen.say(f"the server answers again, after {spoken(self._clock() - since)}")

    def trouble(self, reply: Reply, tries: int) -> None:
        """A claim got no lane and no answer that says so; `tries` of one slot in a row. Raises WorkerError where that
        ends the worker.

        What isn't Heartlane's answer (a proxy's page) never ends a worker that has reached its server before; nor does
        a 429 or 5xx before that, but for a server that isn't reached in time.
        """
        if reply.status in (400, 404) and reply.code is not None:
            raise WorkerError(f"the server refuses the claim: {reply.problem}", "wrong_input")
        kind: Kind = reply.kind
        strange = kind == "not_heartlane" and reply.status != 429 and (reply.status or 0) < 500
        hopeless = kind == "tls_fault" or (strange and tries >= STRANGE_TRIES)
        if kind == "token_refused" or (hopeless and not self.reached):
            raise WorkerError(f"{reply.problem.rstrip('.')}. {CURES.get(kind, '')}".rstrip(), kind)
        now = self._clock()
        with self._lock:
            since = self._since = now if self._since is None else self._since
            if not self.reached and self._patience is not None and reply.status != 429:
                if now - since >= self._patience:
                    raise WorkerError(
                        f"{reply.problem} (tried for {spoken(now - since)}): check HEARTLANE_URL, and that the server "
                        "runs; with `--wait-for-server forever` a worker tries for as long as it takes",
                        "server_unreachable",
                    )
                more = f"; trying for {spoken(self._patience)}"
            else:
                more = "; trying again"
            line = self._line(reply.problem, now, since)
        if line:
            self._screen.say(line + more)

    def _line(self, problem: str, now: float, since: float) -> str:
        """What is to be said of it now, if anything."""
        if now < self._said_at + SAY_SECONDS_MIN:
            return ""
        if problem == self._said and now < self._remind_at:
            return ""
        if not self._said:
            self._remind_seconds = REMIND_SECONDS
        line = f"{problem} (for {spoken(now - since)} now)" if problem == self._said else problem
        self._said, self._said_at, self._remind_at = problem, now, now + self._remind_seconds
        self._remind_seconds = min(REMIND_SECONDS_MAX, self._remind_seconds * 2)
        return line
