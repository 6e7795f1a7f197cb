"""From the spool to the server: one batch at a time, in order, each until it has arrived.

A batch keeps its `seq` and its bytes through every retry and every restart, so that the server stores it once. What
the answer means for the lane is the keeper's affair; here it decides what becomes of the batch:

    arrived             acknowledged, the next one
    claim lost          it can't arrive any more: the spool stays as it is, for `heartlane spool`
    refused as such     (400, 413) halved, down to the one event that is at fault, which is given up and counted
    anything else       again, with jitter
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Final

from heartlane.client.lease import Meaning
from heartlane.worker.clock import boottime
from heartlane.worker.exchange import Exchange
from heartlane.worker.keeper import Keeper
from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import Outgoing, SpoolError

LINGER_SECONDS: Final = 1.0
"""Between two batches, unless the next is full or urgent."""
TOO_LARGE_TIMES: Final = 4
"""So often in a row a proxy has to find a batch too large that may have got through before."""
IDLE_SECONDS: Final = 0.25
"""Between two looks of a lane that is ending, for which nothing lingers."""


class Sender:
    """Sends what is spooled, on a thread of its own, until it is closed or the lane is lost.

    on_sent     called on that thread after each batch that arrived, and when it breaks down
    """

    def __init__(self, exchange: Exchange, spool: Spool, keeper: Keeper, on_sent: Callable[[], None]) -> None:
        self.reports = 0
        self.refused = 0
        self.fault: Exception | None = None
        """What nobody foresaw, which ended its thread: nothing is sent any more."""
        self._exchange = exchange
        self._spool = spool
        self._keeper = keeper
        self._on_sent = on_sent
        self._closing = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartlane-sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def hurry(self) -> None:
        """Let no batch wait for more events from now on: the lane is ending."""
        self._hurry.set()

    def close(self, seconds: float) -> bool:
        """Send no more; False where the last call is still under way after that many seconds."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def done(self) -> bool:
        """Whether it has ended: closed, or the lane lost."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._send_all()
        except Exception as error:  # noqa: BLE001 - raised again by whoever works the lane
            if not (self._closing.is_set() and isinstance(error, SpoolError)):  # closed by whoever ends the lane
                self.fault = error
                self._on_sent()

    def _send_all(self) -> None:
        while not self._closing.is_set():
            hurry = self._hurry.is_set()
            batch = self._spool.next_batch(0.0 if hurry else LINGER_SECONDS)
            if batch is not None:
                if not self._send(batch):
                    return
            elif hurry:
                self._closing.wait(IDLE_SECONDS)

    def _send(self, batch: Outgoing) -> bool:
        """Send until it has arrived; False when nothing more can."""
        tries = too_large = 0
        # Of the first batch nobody knows whether a worker that was killed has sent it.
        doubtful = self.reports == 0
        while not self._closing.is_set():
            sent_at = boottime()
            reply = self._exchange.post(f"{self._keeper.holding.path}/events", self._body(batch))
            self.reports += 1
            means = self._keeper.heard(reply, sent_at)
            if means is Meaning.REFUSED and reply.code is None:
                # A proxy's word is enough to send less at once, not to give an event up. And a batch that may have
                # arrived is not sent in halves, of which the second would be stored twice, unless it proves too large.
                too_large += 1
                if len(batch.events) == 1 or (doubtful and too_large < TOO_LARGE_TIMES):
                    means = Meaning.RETRY
            else:
                too_large = 0
            doubtful = doubtful or reply.doubtful
            match means:
                case Meaning.KEEP | Meaning.PAUSE | Meaning.STOP:
                    self._spool.acknowledge(batch.seq)
                    self._on_sent()
                    return True
                case Meaning.LOST:
                    return False
                case Meaning.REFUSED:
                    self.refused += 1
                    smaller = self._spool.refused(batch.seq)
                    if smaller is None:
                        return True
                    batch = smaller
                case Meaning.RETRY:
                    tries += 1
                    self._closing.wait(self._keeper.retry_delay(tries, reply))
        return False

    def _body(self, batch: Outgoing) -> bytes:
        head = json.dumps({**self._keeper.holding.body(), "seq": batch.seq}, ensure_ascii=False)
        return head[:-1].encode() + b',"events":' + batch.events_json + b"}"
