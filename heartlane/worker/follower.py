"""Follows the run's stream, so that an operator's hand is felt within a second instead of at the next renewal.

The stream decides nothing: whatever it says only has the keeper ask at once, and the answer to that counts. Without a
stream (an older server, a proxy that lets none through) the renewals' own directives remain.
"""

from __future__ import annotations

import random
import threading
from typing import Final

from heartlane.client.lease import OTHERS_EVENTS
from heartlane.worker.exchange import Exchange, Stream
from heartlane.worker.keeper import Keeper

RETRY_SECONDS: Final = 2.0
NO_STREAM_SECONDS: Final = 60.0


class Follower:
    """Follows on a thread of its own until it is closed."""

    def __init__(self, exchange: Exchange, keeper: Keeper, after: int) -> None:
        self._exchange = exchange
        self._keeper = keeper
        self._last = str(after)
        self._stream: Stream | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartlane-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Follow no longer."""
        self._closing.set()
        stream = self._stream
        if stream is not None:
            stream.cut()

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._exchange.stream(f"{self._keeper.holding.path}/stream", self._last) as stream:
                if stream is not None:
                    self._stream = stream
                    self._follow(stream)
                    self._stream = None
            wait = RETRY_SECONDS if stream is not None else NO_STREAM_SECONDS
            self._closing.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        self._exchange.close()

    def _follow(self, stream: Stream) -> None:
        for event_id, event, _ in stream:
            if event_id is not None:
                self._last = event_id
            if self._closing.is_set():
                return
            if event in OTHERS_EVENTS:
                self._keeper.ask_now()
