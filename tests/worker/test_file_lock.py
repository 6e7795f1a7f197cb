"""The lock that processes and threads share through a file."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from heartlane.worker.file_lock import FileLock, held


def test_one_at_a_time_also_where_holders_remove_the_file(tmp_path: Path) -> None:
    path, inside, most, taken = tmp_path / "lock", 0, 0, 0

    def work() -> None:
        nonlocal inside, most, taken
        for _ in range(20):
            lock = FileLock.acquire(path, 60)
            assert lock is not None
            inside += 1
            most = max(most, inside)
            taken += 1
            time.sleep(0.0005)
            inside -= 1
            lock.release(remove=taken % 2 == 0)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (most, taken) == (1, 100)


def test_a_lock_that_is_held_is_not_had(tmp_path: Path) -> None:
    with held(tmp_path / "lock", 0) as first, held(tmp_path / "lock", 0.1) as second:
        assert first
        assert not second
    with held(tmp_path / "lock", 0) as third:
        assert third


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from heartlane.worker.file_lock import FileLock\n"
        "lock = FileLock.acquire(Path(sys.argv[1])); os._exit(0 if lock else 1)\n"
    )
    path = tmp_path / "lock"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
    lock = FileLock.acquire(path)
    assert lock is not None
    lock.release()
    lock.release()
