"""A worker reduced to its spool: `python spooler.py ROOT APPENDED SENT FIRST`, to be killed at any moment.

Appends events numbered from FIRST on, and notes each in APPENDED once it is kept. Sends them, which is a line in SENT:
the `seq` and the batch as it goes over the wire. Acknowledges some at once and some late, as answers get lost.
"""

import os
import random
import sys
import threading
from pathlib import Path

from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import Header

HEADER = Header("http://127.0.0.1:1", "run-1", 1, "worker-1")


def note(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode() + b"\n")


def send(spool: Spool, descriptor: int) -> None:
    while True:
        batch = spool.next_batch(linger=0.001)
        if batch is not None:
            note(descriptor, f"{batch.seq} {batch.events_json.decode()}")
            if random.random() < 0.8:  # else the answer was lost, and it is sent again
                spool.acknowledge(batch.seq)


def main() -> None:
    root, appended, sent, first = sys.argv[1:]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    spool = Spool.open(HEADER, root=Path(root))
    threading.Thread(target=send, args=(spool, os.open(sent, flags, 0o600)), daemon=True).start()
    noted = os.open(appended, flags, 0o600)
    number = int(first)
    while True:
        spool.append({"type": "action", "payload": {"n": number}, "at": "2026-01-02T03:04:05Z"})
        note(noted, str(number))
        number += 1


if __name__ == "__main__":
    main()
