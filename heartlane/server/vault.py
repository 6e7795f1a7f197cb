"""Secrets that have to be read again (a webhook's, to sign with): sealed at rest with a key that isn't in the database.

The key is the setting `secret_key` or, for SQLite, a file beside the database that only its user may read, made when
the first secret is sealed. A copy of the database alone tells nothing. Several keys, by comma, are for a change of
keys: the first one seals, each of them opens.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_BYTES: Final = 32
KEY_FILE_SUFFIX: Final = ".key"


class NoKey(Exception):
    """There is no key to seal or open with; the text says what to set."""


class CantOpen(Exception):
    """The secret was sealed with a key that isn't here."""


def read_keys(text: str) -> list[str]:
    """The keys of a setting or a file, by comma or line: each 32 bytes in base64. Raises ValueError."""
    keys = []
    for part in text.replace("\n", ",").split(","):
        key = part.strip().replace("+", "-").replace("/", "_").rstrip("=")
        if not key:
            continue
        try:
            raw = base64.b64decode(key + "=" * (-len(key) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != KEY_BYTES:
            raise ValueError("must be 32 bytes in base64, as `openssl rand -base64 32` prints them; several by comma")
        keys.append(base64.urlsafe_b64encode(raw).decode())
    return keys


class Vault:
    """Seals texts and opens them again.

    keys        what the setting says; empty where it isn't set
    key_file    where the key is, or will be made, without the setting; None: nowhere
    """

    def __init__(self, keys: Sequence[str], key_file: Path | None) -> None:
        self._keys = keys
        self._file = key_file
        self._cipher: MultiFernet | None = None

    def seal(self, text: str) -> str:
        """The text as it may be stored. Raises NoKey."""
        return self._with_keys(make=True).encrypt(text.encode()).decode("ascii")

    def open(self, sealed: str) -> str:
        """The text again. Raises NoKey, CantOpen."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - see below

        try:
            return self._with_keys(make=False).decrypt(sealed.encode("ascii")).decode()
        except InvalidToken:
            raise CantOpen("It was sealed with another key than this server has.") from None

    def _with_keys(self, *, make: bool) -> MultiFernet:
        if self._cipher is None:
            # Most servers have no webhook, and do without these 8 MB of memory.
            from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415

            keys = self._keys or self._from_file(make=make)
            self._cipher = MultiFernet([Fernet(key) for key in keys])
        return self._cipher

    def _from_file(self, *, make: bool) -> list[str]:
        if self._file is None:
            raise NoKey(
                "This server has no key to keep secrets with: set HEARTLANE_SECRET_KEY, the same on every server."
            )
        try:
            if make and not self._file.exists():
                _make(self._file)
            keys = read_keys(self._file.read_text("ascii"))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise NoKey(f"The file with this server's key can't be used: {self._file}: {why}") from None
        if not keys:
            raise NoKey(f"The file with this server's key is empty: {self._file}")
        return keys


def _make(path: Path) -> None:
    """Write a new key, whole or not at all, for this user alone; one that another process made meanwhile stays."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.urlsafe_b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()
