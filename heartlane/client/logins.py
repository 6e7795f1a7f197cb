"""Logins that are kept on this machine: which servers there are, and the token for each.

One file of the user's own, `logins.json` in the configuration folder, that nobody else may read. Where the library
`keyring` is installed and the system has a keyring to offer, a token goes there and the file says so; else it stands in
the file. A token is only ever looked up for the very server that it was stored for.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from heartlane.client.errors import NotConfigured

SERVICE: Final = "heartlane"
"""Under what a keyring keeps the tokens, by the server's address."""
FILE_BYTES_MAX: Final = 1024 * 1024


class Login(NamedTuple):
    """A login that is kept: the server's address, and where its token is: "keyring" or "file"."""

    url: str
    place: str


def logins_file() -> Path:
    """The file; it need not exist."""
    from platformdirs import user_config_path  # noqa: PLC0415 - only where the environment doesn't say enough

    return user_config_path("heartlane", appauthor=False) / "logins.json"


def current_url() -> str | None:
    """The server that was logged in to last. Raises NotConfigured for a file that can't be read."""
    url = _read().get("current")
    return url if isinstance(url, str) else None


def stored_token(url: str) -> str | None:
    """The token that is kept for this server, or None. Raises NotConfigured where the file or the keyring fails."""
    entry = _entries(_read()).get(key_of(url))
    if entry is None:
        return None
    if entry.get("place") != "keyring":
        token = entry.get("token")
        return token if isinstance(token, str) else None
    ring = _keyring()
    if ring is None:
        raise NotConfigured(
            f"The token for {url} is in the system's keyring, which can't be used now: unlock it, or `heartlane login`."
        )
    try:
        found = ring.get_password(SERVICE, key_of(url))
    except Exception as error:  # noqa: BLE001 - a backend raises whatever its system does
        raise NotConfigured(f"The system's keyring doesn't give out the token for {url}: {error}") from None
    return found if isinstance(found, str) else None


def store(url: str, token: str, *, use_keyring: bool = True) -> Login:
    """Keep a token, and take its server for the one that is meant where none is named. Raises NotConfigured."""
    found = _read()
    ring = _keyring() if use_keyring else None
    place = "file"
    if ring is not None:
        with suppress(Exception):  # locked, refused, or of no use after all: then the file
            ring.set_password(SERVICE, key_of(url), token)
            place = "keyring"
    entry = {"place": place} if place == "keyring" else {"place": place, "token": token}
    entries = {**_entries(found), key_of(url): entry}
    _write({**found, "current": key_of(url), "logins": entries})
    return Login(key_of(url), place)


def forget(url: str) -> bool:
    """Keep the token for this server no longer; whether there was one. Raises NotConfigured."""
    found = _read()
    entries = dict(_entries(found))
    entry = entries.pop(key_of(url), None)
    if entry is None:
        return False
    if entry.get("place") == "keyring" and (ring := _keyring()) is not None:
        with suppress(Exception):  # gone already, or locked: without the file's entry nobody asks for it
            ring.delete_password(SERVICE, key_of(url))
    current = found.get("current")
    _write({**found, "current": None if current == key_of(url) else current, "logins": entries})
    return True


def key_of(url: str) -> str:
    """The address by which a server is known here: scheme and host in lower case.

    >>> key_of("HTTP://Lanes.example:8484/")
    'http://lanes.example:8484'
    """
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


# --- the file and the keyring -------------------------------------------------------------------------------------


def _entries(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    logins = found.get("logins")
    if not isinstance(logins, dict):
        return {}
    return {url: entry for url, entry in logins.items() if isinstance(entry, dict)}


def _read() -> dict[str, Any]:
    path = logins_file()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(FILE_BYTES_MAX)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NotConfigured(f"The stored logins in {path} can't be read: {error.strerror}.") from None
    if mode & 0o077:
        raise NotConfigured(f"Others may read the tokens in {path}: chmod 600 it, and rotate them if somebody did.")
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotConfigured(f"{path} is not as `heartlane login` wrote it: correct it, or delete it and log in again.")
    return found


def _write(found: Mapping[str, Any]) -> None:
    """Write the file whole or not at all, readable to its owner alone from its first byte on."""
    path = logins_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".logins-", dir=path.parent)  # mkstemp makes it 0600
        part = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(found, file, indent=2)
                file.write("\n")
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise NotConfigured(f"The login can't be stored in {path}: {error.strerror}.") from None


def _keyring() -> Any:
    """The library `keyring` where it is installed and has somewhere to keep secrets; else None."""
    try:
        import keyring  # noqa: PLC0415 - an extra, and slow to load
        from keyring.backends import fail, null  # noqa: PLC0415
    except ImportError:
        return None
    try:
        backend = keyring.get_keyring()
    except Exception:  # noqa: BLE001 - a backend raises whatever its system does
        return None
    return None if isinstance(backend, (fail.Keyring, null.Keyring)) else keyring
