"""A worker as a service of the user's: the unit for systemd, the agent for launchd, and the file with its secrets.

The token never stands in the unit, which anybody may read: it is in a file of variables of its own (0600), that systemd
reads by itself, and that a shell reads for launchd.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from heartlane.worker.errors import WorkerError

System = Literal["systemd", "launchd"]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")
STOP_SECONDS: Final = 120
"""How long a worker has to end its agents and give its lanes back before it is killed."""
RESTART_SECONDS: Final = 10
_READ_VARIABLES: Final = 'set -a; . "$0"; set +a; exec "$@"'
_PLAIN_VALUE: Final = re.compile(r"[!#%&()*+,./0-9:;<=>?@A-Z\[\]^_a-z{|}~-]*")
"""Values that systemd and a shell read alike between single quotes."""


class Service(NamedTuple):
    """What becomes a service.

    name            tells workers on one machine apart
    command         the program and its arguments, the program by its absolute path
    folder          where it runs
    variables_file  file of variables with its secrets
    search_path     PATH, by which it finds the agent's program
    log_file        where launchd puts what it prints; systemd has its journal
    never_again     exit codes after which starting it again is no use
    """

    name: str
    command: Sequence[str]
    folder: Path
    variables_file: Path
    search_path: str
    log_file: Path
    never_again: Collection[int] = ()


def check(service: Service, secrets: Collection[str]) -> None:
    """Raises WorkerError for what can't be a service: a name no file can have, a secret among the arguments."""
    if not NAME.fullmatch(service.name):
        raise WorkerError(
            f"{service.name!r} is no name for a service: letters, digits, - and _, at most 50", "wrong_input"
        )
    for argument in service.command:
        if any(secret in argument for secret in secrets if secret) or re.search(r"hlt_[A-Za-z0-9_-]{8}", argument):
            raise WorkerError(
                f"there is a token among the arguments, which anybody on this machine could read: put it into "
                f"{service.variables_file}",
                "wrong_input",
            )
        if any(ord(character) < 0x20 and character not in "\t\n" for character in argument):
            raise WorkerError("an argument has a control character, which no service can hold", "wrong_input")


def file_of(system: System, name: str, home: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the service's description belongs."""
    if system == "launchd":
        return home / "Library" / "LaunchAgents" / f"{label(name)}.plist"
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return config / "systemd" / "user" / unit_name(name)


def variables_file_of(name: str, home: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the service's variables belong, on either system."""
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return config / "heartlane" / f"{name}.env"


def unit_name(name: str) -> str:
    """What systemd calls it.

    >>> unit_name("worker")
    'heartlane-worker.service'
    """
    return f"heartlane-{name}.service"


def label(name: str) -> str:
    """What launchd calls it."""
    return f"heartlane.{name}"


def describe(system: System, service: Service) -> str:
    """The text of the service's description."""
    return unit(service) if system == "systemd" else property_list(service)


def unit(service: Service) -> str:
    """A systemd user unit.

    A stop is for the worker alone, which ends its agents in order (KillMode); what is left after it, systemd kills. The
    worker may make control groups for its commands below the unit's own (Delegate).
    """
    never = (
        f"RestartPreventExitStatus={' '.join(map(str, sorted(service.never_again)))}\n" if service.never_again else ""
    )
    return (
        "[Unit]\n"
        f"Description=Heartlane worker {service.name}\n"
        "StartLimitIntervalSec=0\n"
        "\n"
        "[Service]\n"
        "Type=exec\n"
        f"WorkingDirectory={_unit_path(service.folder)}\n"
        f"Environment={_unit_word(f'PATH={service.search_path}')}\n"
        f"EnvironmentFile={_unit_path(service.variables_file)}\n"
        f"ExecStart={' '.join(_unit_word(word, command=True) for word in service.command)}\n"
        "Restart=on-failure\n"
        "SuccessExitStatus=130 143\n"
        f"RestartSec={RESTART_SECONDS}\n"
        f"{never}"
        "Delegate=yes\n"
        "KillMode=mixed\n"
        f"TimeoutStopSec={STOP_SECONDS}\n"
        "\n"
        "[Install]\n"
        "WantedBy=default.target\n"
    )


def _unit_word(text: str, *, command: bool = False) -> str:
    """A word as systemd reads it back: its specifiers (%), and in commands its variables ($), mean nothing here."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    return text if re.fullmatch(r"[\w$%+,./:=@-]+", text) else f'"{text}"'


def _unit_path(path: Path) -> str:
    """A path that is a whole line's value, where quotes would be taken for a part of it."""
    return str(path).replace("%", "%%")


def property_list(service: Service) -> str:
    """A launchd agent. A shell reads the variables, as launchd has no way to; then it becomes the worker."""
    import plistlib  # noqa: PLC0415 - brings an XML parser along

    described = {
        "Label": label(service.name),
        "ProgramArguments": ["/bin/sh", "-c", _READ_VARIABLES, str(service.variables_file), *service.command],
        "WorkingDirectory": str(service.folder),
        "EnvironmentVariables": {"PATH": service.search_path},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RESTART_SECONDS,
        "ExitTimeOut": STOP_SECONDS,
        "ProcessType": "Background",
        "StandardOutPath": str(service.log_file),
        "StandardErrorPath": str(service.log_file),
    }
    return plistlib.dumps(described, sort_keys=False).decode()


def variables_text(url: str | None, token: str | None) -> str:
    """The text of the variables' file; a variable that isn't known stands there to be filled in.

    Raises WorkerError for a value that the file can't hold.
    """
    lines = ["# Variables of a Heartlane worker. The token is a secret: nobody else may read this file.\n"]
    for name, value in (("HEARTLANE_URL", url), ("HEARTLANE_TOKEN", token)):
        if value is not None and not _PLAIN_VALUE.fullmatch(value):
            raise WorkerError(f"{name} has characters that no file of variables can hold: set it again", "wrong_input")
        lines.append(f"{name}='{value}'\n" if value else f"#{name}=\n")
    return "".join(lines)


def write_private(path: Path, text: str) -> bool:
    """Write a new file that only its user may read; False, and nothing changed, where there is one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True
