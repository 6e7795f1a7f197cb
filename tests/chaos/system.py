"""What the campaign is done to: three servers on one PostgreSQL with its standby, and a link before each of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from tests.chaos.databases import NAME, USER, Pair
from tests.chaos.link import Link
from tests.e2e.server_process import HOST, ServerProcess

SERVERS: Final = 3
FAKETIME: Final = ("usr/lib/*/faketime/libfaketimeMT.so.1", "usr/local/lib/faketime/libfaketimeMT.so.1")


def faketime() -> str | None:
    """libfaketime where it is installed (`apt-get install libfaketime`): it gives a process a clock of its own."""
    found = sorted(str(path) for pattern in FAKETIME for path in Path("/").glob(pattern))
    return found[0] if found else None


class System:
    """All of it. Clients come in by `urls`: one for each server, and one that goes on to whichever answers.

    to_database     links of the servers to PostgreSQL, one each
    to_server       links of the clients to the servers, one each, and the common one at the end
    """

    def __init__(self, folder: Path) -> None:
        self.pair = Pair()
        self.to_database = [Link(self.pair.primary.port) for _ in range(SERVERS)]
        self.to_server: list[Link] = []
        self.servers: list[ServerProcess] = []
        self._folder = folder
        self._clock = folder / "clock"
        self.has_clock = faketime() is not None

    async def start(self) -> None:
        """PostgreSQL first."""
        await self.pair.start()
        for number, link in enumerate(self.to_database):
            await link.open()
            server = ServerProcess(
                f"postgresql://{USER}@{HOST}:{link.port}/{NAME}", self._folder, name=f"server-{number}", pool_size=5
            )
            if number == 0 and self.has_clock:
                server.variables = self._clock_variables()
            self.servers.append(server)
            await asyncio.to_thread(server.start)
        self.to_server = [*(Link(server.port) for server in self.servers), Link(*(one.port for one in self.servers))]
        for link in self.to_server:
            await link.open()

    def _clock_variables(self) -> dict[str, str]:
        self.set_clock(0)
        return {
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, offset_seconds: int) -> None:
        """Move the first server's clock that far from the machine's, within a second."""
        self._clock.write_text(f"{offset_seconds:+d}s\n", "utf-8")

    @property
    def urls(self) -> list[str]:
        """Where clients come in."""
        return [f"http://{HOST}:{link.port}" for link in self.to_server]

    def turn_to_primary(self) -> None:
        """After a promotion."""
        for link in self.to_database:
            link.turn_to(self.pair.primary.port)

    async def stop(self) -> None:
        """Leave nothing."""
        for server in self.servers:
            server.close()
        for link in (*self.to_database, *self.to_server):
            await link.close()
        await asyncio.to_thread(self.pair.remove)
        _clear_up_after_faketime()


def _clear_up_after_faketime() -> None:
    """What libfaketime shares between processes is left behind by those that are killed."""
    for path in Path("/dev/shm").glob("faketime_*"):
        if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists():
            path.unlink(missing_ok=True)
