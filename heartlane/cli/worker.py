"""`heartlane worker`: a worker that the system starts by itself, as a service of the user's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from heartlane.cli.errors import EXIT_CODES, CommandError

if TYPE_CHECKING:
    from heartlane.worker.service import System

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Let the system start a worker by itself, as a service of yours.",
)

WAIT: Final = "--wait-for-server"
SYSTEMS: Final = ("systemd", "launchd")

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Tells workers on one machine apart.")]
Which = Annotated[
    str | None,
    typer.Option(
        "--for", metavar="SYSTEM", help="systemd or launchd. Default: what this machine has.", show_default=False
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


@app.command()
def install(
    *,
    arguments: Annotated[list[str], typer.Argument(metavar="ARGUMENTS…", help="Behind --: those of heartlane work.")],
    name: Name = "worker",
    system: Which = None,
    yes: Yes = False,
) -> None:
    """Print the service that runs `heartlane work ARGUMENTS…`, and write it when you say so.

    The token goes into a file of its own that only you may read, from HEARTLANE_TOKEN where that is set.
    """
    from heartlane.worker import service as services

    kind = _system(system)
    # Nobody sits in front of it: a server that is down when the machine starts is waited for.
    given = any(word == WAIT or word.startswith(f"{WAIT}=") for word in arguments)
    waits = [] if given else [WAIT, "forever"]
    variables = services.variables_file_of(name, Path.home())
    token = os.environ.get("HEARTLANE_TOKEN")
    service = services.Service(
        name=name,
        command=[sys.executable, "-P", "-m", "heartlane", "work", *waits, *arguments],
        folder=Path.cwd(),
        variables_file=variables,
        search_path=os.environ.get("PATH", os.defpath),
        log_file=Path.home() / "Library" / "Logs" / f"{services.label(name)}.log",
        never_again=[row.code for row in EXIT_CODES if not row.again and row.code not in (0, 130, 143)],
    )
    services.check(service, [token] if token else [])
    text = services.variables_text(os.environ.get("HEARTLANE_URL"), token)
    path = services.file_of(kind, name, Path.home())
    described = services.describe(kind, service)
    print(described, end="", flush=True)
    if not _agreed(yes, f"Write this to {path}?"):
        return
    new = services.write_private(variables, text)
    if not new and variables.stat().st_mode & 0o077:
        variables.chmod(0o600)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(described, "utf-8")
    _say(f"Written: {path}")
    _say(f"Written: {variables}" if new else f"Kept as it was: {variables}")
    if "#HEARTLANE_" in variables.read_text("utf-8"):
        _say(f"Fill in HEARTLANE_URL and HEARTLANE_TOKEN in {variables} first.")
    for line in _how_to_start(kind, name, path):
        _say(line)


@app.command()
def uninstall(
    *,
    name: Name = "worker",
    system: Which = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the file with its token too.")] = False,
    yes: Yes = False,
) -> None:
    """Stop the service, and remove it."""
    from heartlane.worker import service as services

    kind = _system(system)
    path = services.file_of(kind, name, Path.home())
    variables = services.variables_file_of(name, Path.home())
    if not path.exists() and not (purge and variables.exists()):
        raise CommandError(f"there is no such service: {path} does not exist")
    if not _agreed(yes, f"Stop and remove {path}?"):
        return
    stop = ["systemctl", "--user", "disable", "--now", services.unit_name(name)]
    if kind == "launchd":
        stop = ["launchctl", "bootout", f"gui/{os.getuid()}/{services.label(name)}"]
    program = shutil.which(stop[0])
    stopped = program is not None and _runs([program, *stop[1:]])
    path.unlink(missing_ok=True)
    _say(f"Removed: {path}")
    if not stopped:
        _say(f"If it runs still: {' '.join(stop)}")
    if purge:
        with contextlib.suppress(FileNotFoundError):
            variables.unlink()
            _say(f"Removed: {variables}")
    elif variables.exists():
        _say(f"Kept, with its token: {variables} (--purge removes it)")


def _system(named: str | None) -> System:
    if named not in (None, *SYSTEMS):
        raise CommandError(f"--for must be systemd or launchd, not {named!r}")
    if named == "launchd" or (named is None and sys.platform == "darwin"):
        return "launchd"
    return "systemd"


def _agreed(yes: bool, question: str) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        _say("Nothing was changed: there is nobody to ask. Run it again with --yes.")
        return False
    return typer.confirm(question, err=True)


def _how_to_start(kind: System, name: str, path: Path) -> list[str]:
    from heartlane.worker import service as services

    if kind == "launchd":
        return [f"Start it: launchctl bootstrap gui/{os.getuid()} {path}"]
    return [
        f"Start it: systemctl --user daemon-reload && systemctl --user enable --now {services.unit_name(name)}",
        f"Read its log: journalctl --user -u {services.unit_name(name)}",
        "Let it run while you are not logged in: loginctl enable-linger",
    ]


def _runs(command: list[str]) -> bool:
    try:
        # A command of our own making, nothing of which anybody sends.
        return subprocess.run(command, capture_output=True, timeout=180, check=False).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
