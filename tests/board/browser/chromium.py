"""The browser that the board's tests look with: a Chromium of this machine, found or, where that may be, installed.

`python -m tests.board.browser.chromium` (`make browser`) installs Debian's. With `--if-missing` (as `make test` calls
it) it does so only as root, with apt, and where nobody sits at a terminal: that is a build machine or a container.
Whatever comes of it, it ends well then: the tests say themselves when they leave the browser out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

VARIABLE: Final = "HEARTLANE_TEST_BROWSER"
"""Names the browser; empty: none, and the tests that need one are left out."""
NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
APT_SECONDS: Final = 600
LEFT_OUT: Final = "no Chromium here, so the tests in a browser were left out; `make browser` installs one with apt"
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)


def find() -> str | None:
    """The path of a Chromium, or None."""
    if (named := os.environ.get(VARIABLE)) is not None:
        return shutil.which(named) if named else None
    return next((path for path in map(shutil.which, NAMES) if path), None)


def install() -> bool:
    """Install Debian's Chromium with apt; whether there is one then."""
    apt = ["apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--no-install-recommends", "chromium", "fonts-liberation"]):
        try:
            done = subprocess.run(
                [*apt, *arguments], env=environment, stdout=subprocess.DEVNULL, timeout=APT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"apt-get {arguments[0]}: {error}\n")
            return False
        if done.returncode:
            return False
    return find() is not None


def main(arguments: list[str]) -> int:
    if found := find():
        if "--if-missing" not in arguments:
            sys.stdout.write(f"{found} is there\n")
        return 0
    may = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None
    if "--if-missing" in arguments:
        if may and VARIABLE not in os.environ and not sys.stdout.isatty():
            sys.stdout.write("Installing Chromium with apt for the tests in a browser ...\n")
            sys.stdout.flush()
            install()
        return 0
    if not may:
        sys.stderr.write(f"Needs root and apt-get; else install a Chromium yourself, or name one in {VARIABLE}.\n")
        return 1
    return 0 if install() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
