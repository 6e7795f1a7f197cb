"""Whether anything may be done for a lane now, and what happens when something of it can't be ended.

Nothing is begun for a lane unless its lease certainly holds and no operator has paused it: no agent is started, no
check run, no branch published. And as long as something of its tree can't be killed (a process of another user, one
that waits for a device), the lane is kept, and the slot that worked it begins nothing else: a further attempt would
stand beside the first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from heartlane.client.lease import Standing
from heartlane.worker.child import Child
from heartlane.worker.child_errors import TooLate
from heartlane.worker.keeper import Keeper
from heartlane.worker.status import LaneStatus
from heartlane.worker.tree import Tree, marked
from heartlane.worker.verdict import TOLD, Verdict, lost

T = TypeVar("T")

LOOK_SECONDS: Final = 0.1
OUTLIVES: Final = (
    "something that the agent started can't be ended (pids {pids}): nothing else is begun until it is gone"
)
IS_GONE: Final = "what could not be ended is gone now"


class Leave:
    """One lane's. `wake` is set whenever something may have changed; `check` raises what ended another thread."""

    def __init__(
        self,
        keeper: Keeper,
        status: LaneStatus,
        *,
        wake: threading.Event,
        stopping: threading.Event,
        check: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._status = status
        self._wake = wake
        self._stopping = stopping
        self._check = check

    def wait(self) -> Verdict | None:
        """Wait until something may be done. The verdict where that can't be."""
        state = self._status.state
        try:
            while True:
                self._check()
                if self._keeper.loss is not None or self._keeper.standing() is Standing.GONE:
                    return lost(self._keeper.loss)
                if self._stopping.is_set() or self._keeper.told_to_stop:
                    return TOLD
                if self._keeper.paused:
                    self._status.state = "paused"
                elif self._keeper.confirmations and self._keeper.standing() is Standing.HELD:
                    return None
                self._pause()
        finally:
            self._status.state = state

    def begin(self, start: Callable[[], T]) -> T | Verdict:
        """Begin something once it may be; again where the lease ran out before it could. The verdict where it can't."""
        while (refused := self.wait()) is None:
            with contextlib.suppress(TooLate):
                return start()
        return refused

    def outlive(self, child: Child, say: Callable[[str], None], patient: Callable[[], bool]) -> bool:
        """Wait until nothing is left of a tree that could not be ended; False where patience ends before that.

        While the claim holds it is kept, so that nobody else begins; where it is lost, this slot at least begins
        nothing else.
        """
        self._status.state = "stuck"
        pids = sorted({process.pid for process in (*Tree(child.guard_pid).members(), *marked(child.mark))})
        say(OUTLIVES.format(pids=", ".join(map(str, pids)) or "unknown"))
        while not child.empty:
            self._check()
            if not patient():
                return False
            self._pause()
        say(IS_GONE)
        return True

    def _pause(self) -> None:
        self._wake.wait(LOOK_SECONDS)
        self._wake.clear()
