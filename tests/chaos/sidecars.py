"""Some real `heartlane work` in the campaign, over an agent that leaves evidence; killed and stopped by chance."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.chaos.checker import Run
from tests.e2e.server_process import environment
from tests.worker import witness

MARKS: Final = 20
END_SECONDS: Final = 90.0


class Sidecars:
    """So many workers. `did`: what was done to them."""

    def __init__(
        self, url: str, token: str, project: str, folder: Path, count: int, *, lease_seconds: int, chance: random.Random
    ) -> None:
        self.did: Counter[str] = Counter()
        self._evidence = folder / "evidence"
        self._evidence.touch()
        self._log = folder / "sidecars.log"
        self._folder = folder
        self._project = project
        self._lease = lease_seconds
        self._chance = chance
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._variables = {
            **environment(folder / "home"),
            "HEARTLANE_URL": url,
            "HEARTLANE_TOKEN": token,
            "HEARTLANE_STATE": str(folder / "state"),
        }

    async def start(self) -> None:
        """All."""
        for number in range(len(self._processes)):
            self._start(number)

    def _start(self, number: int) -> None:
        options = ("--plain", "--wait-for-server", "forever", "--grace", "1s", "--name", f"sidecar-{number}")
        wanted = ("--project", self._project, "--lease", str(self._lease))
        with self._log.open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "heartlane", "work", *options, *wanted),
                    *("--", *witness.agent(self._evidence, MARKS)),
                ],
                env=self._variables,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def disturb(self, seconds: float) -> None:
        """Kill one and stop one now and then, for so long."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        while self._processes and loop.time() < ends_at:
            await asyncio.sleep(self._chance.uniform(2.0, 6.0))
            number = self._chance.randrange(len(self._processes))
            process = self._processes[number]
            assert process is not None
            if self._chance.random() < 0.5:
                self.did["sidecar killed"] += 1
                process.kill()
                await asyncio.to_thread(process.wait)
                self._start(number)
            else:
                self.did["sidecar stopped"] += 1
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self._chance.uniform(0.5, 2.5) * self._lease)
                process.send_signal(signal.SIGCONT)

    async def finish(self) -> None:
        """Let each finish its lane, and end."""
        for process in self._processes:
            assert process is not None
            assert process.poll() is None, f"a worker ended by itself\n{self._log.read_text(errors='replace')[-4000:]}"
            process.send_signal(signal.SIGUSR1)
        for process in self._processes:
            assert process is not None
            await asyncio.to_thread(process.wait, END_SECONDS)

    def check(self, runs: Mapping[str, Run]) -> None:
        """Raise AssertionError where two agents worked one lane at a time, or a shipped lane lacks a mark."""
        lines = witness.read(self._evidence)
        witness.check_never_two(lines)
        for run_id in {line.run_id for line in lines}:
            run = runs[run_id]
            if run.row["state"] == "shipped":
                told = [
                    event["payload"]["line"]
                    for event in run.events
                    if event["type"] == "log_line" and event["attempt"] == run.row["attempt"]
                ]
                marks = [text for text in told if text.startswith("mark")]
                assert marks == [f"mark {number}" for number in range(MARKS)], f"{run_id}: {marks}"

    def close(self) -> None:
        """None is left."""
        for process in self._processes:
            if process is not None and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
