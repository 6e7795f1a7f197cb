"""Secrets out of events, before they are spooled: what is masked here reaches neither the disk nor the server.

Masked are: the sidecar's own token and other values that it is told of; the values of environment variables whose name
says that they are secret; what matches a pattern of the user's; and every shape of `heartlane.wire.secrets`. In every
string of a payload, keys included, and over the lines of a private key that comes line by line.

Lines are whole here (`heartlane.worker.reader` joins what came in pieces), so that no secret is split. What can't be
caught: a secret that looks like nothing and stands in no variable, or one that its owner encoded, base64 say.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from heartlane.wire.secrets import BEGIN_KEY, END_KEY, HIDDEN_KEYS, MASK, find_shapes, mask
from heartlane.worker.errors import WorkerError

VALUE_CHARACTERS_MIN: Final = 8
"""A shorter value of a variable is not looked for: masking every "dev" would leave no text."""
KEY_LINES_MAX: Final = 200
DEPTH_MAX: Final = 100

SECRET_NAMES: Final = frozenset(
    "AUTH COOKIE CREDENTIAL CREDENTIALS DSN KEY PASS PASSPHRASE PASSWD PASSWORD PAT PWD SECRET SECRETS TOKEN".split()
)
"""A variable is secret when one of these is a part of its name: `GITHUB_TOKEN`, `AWS_ACCESS_KEY_ID`, `MYSQL_PWD`."""
_SECRET_ENDS: Final = ("APIKEY", "AUTHTOKEN", "PASSWORD", "SECRETKEY", "DATABASE_URL", "CONNECTION_STRING")
_PLAIN_NAMES: Final = frozenset("PWD OLDPWD SSH_AUTH_SOCK XAUTHORITY".split())
_PLAIN_VALUES: Final = re.compile(
    r"[0-9.,:]{0,11}|anonymous|default|disabled|enabled|heartlane|interactive|localhost|optional|password|postgres(ql)?"
    r"|required|undefined|unlimited",
    re.IGNORECASE,
)

_BEGIN_KEY: Final = re.compile(BEGIN_KEY)
_END_KEY: Final = re.compile(END_KEY)
_KEY_LINE: Final = re.compile(r"[\s>|#*\"'\\n]*(?:[A-Za-z0-9+/=]{1,100}|[A-Za-z-]{1,40}: [^\n]{0,200})?[\s\"',\\n]*")
"""What a line of a private key looks like, its headers and what quotes it included."""


class BadPattern(WorkerError):
    """A pattern of the user's is no regular expression. The text says which and why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "wrong_input")


class Redactor:
    """Masks secrets in events and texts. For several threads."""

    def __init__(
        self, *, values: Iterable[str] = (), env: Mapping[str, str] | None = None, patterns: Iterable[str] = ()
    ) -> None:
        """Know these secrets from the start.

        values      secret wherever they stand: the token
        env         an environment, of which the secret variables' values are
        patterns    regular expressions of the user's; all that one matches is masked. Raises BadPattern.
        """
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._pattern = find_shapes()
        self._patterns = tuple(_compile(pattern) for pattern in patterns)
        self._keys_open: dict[str, int] = {}
        self.add(values)
        self.add(secret_values(env or {}))

    def add(self, values: Iterable[str]) -> None:
        """Mask these values from now on, as they stand in JSON and in URLs too; of several lines, each by itself."""
        with self._lock:
            for value in values:
                pieces = [value, *(line.strip() for line in value.splitlines() if len(line.strip()) >= 16)]
                for piece in pieces:
                    self._known |= {piece, json.dumps(piece)[1:-1], quote(piece, safe="")} - {""}
            known = sorted(self._known, key=len, reverse=True)  # where one begins with another, all of it is masked
            self._pattern = find_shapes(*map(re.escape, known))

    def text(self, text: str) -> str:
        """The text without secrets."""
        text = mask(self._pattern, text)
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event without secrets, as a new value: the payload's every string, and what stands under a secret's name.

        Log lines are taken in their order, each stream's (`payload.stream`) by itself: the lines of a private key are
        masked from its first to its last.
        """
        masked = dict(event)
        payload = masked.get("payload")
        if payload is None:
            return masked
        payload = self._value(payload, 0)
        if masked.get("type") == "log_line" and isinstance(payload, dict) and isinstance(payload.get("line"), str):
            line = payload["line"]
            if self._keys_open or "-----BEGIN" in line:
                payload["line"] = self._key_line(str(payload.get("stream", "")), line)
        masked["payload"] = payload
        return masked

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            if depth > DEPTH_MAX:
                return MASK  # what is too deep to look through
            return {self._key(key): self._under(key, item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return MASK if depth > DEPTH_MAX else [self._value(item, depth + 1) for item in value]
        return value

    def _key(self, key: Any) -> Any:
        return self.text(key) if isinstance(key, str) else key

    def _under(self, key: Any, value: Any, depth: int) -> Any:
        if isinstance(value, str) and value and isinstance(key, str) and key.lower() in HIDDEN_KEYS:
            return MASK
        return self._value(value, depth + 1)

    def _key_line(self, stream: str, line: str) -> str:
        with self._lock:
            left = self._keys_open.pop(stream, 0)
            if _BEGIN_KEY.search(line):
                if not _END_KEY.search(line):
                    self._keys_open[stream] = KEY_LINES_MAX
                return line  # masked by its shape
            if not left:
                return line
            if _END_KEY.search(line):
                return MASK
            if left > 1 and _KEY_LINE.fullmatch(line):
                self._keys_open[stream] = left - 1
                return MASK
            return line  # whatever comes now, it is no key any more


def secret_values(env: Mapping[str, str]) -> list[str]:
    """The values of an environment's variables that are secret by their name, but for those that can't be any.

    Those are short ones, plain numbers, words that one meets everywhere, and the names of files that are there.
    """
    return [value for name, value in env.items() if is_secret_name(name) and _may_be_secret(value)]


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    name = name.upper()
    if name in _PLAIN_NAMES:
        return False
    return not SECRET_NAMES.isdisjoint(name.split("_")) or name.endswith(_SECRET_ENDS)


def _may_be_secret(value: str) -> bool:
    if len(value) < VALUE_CHARACTERS_MIN or _PLAIN_VALUES.fullmatch(value):
        return False
    try:
        return not (value.startswith(("/", "~")) and Path(os.path.expanduser(value)).exists())  # noqa: PTH111
    except (OSError, ValueError, RuntimeError):
        return True


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadPattern(f"not a regular expression: {pattern!r}: {error}") from None
    if compiled.fullmatch(""):
        raise BadPattern(f"matches nothing at all, and so everywhere: {pattern!r}")
    return compiled
