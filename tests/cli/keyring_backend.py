"""A keyring that keeps its secrets in the file that KEYRING_FILE names: what a system's keyring is to the library."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringError, PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Chosen by PYTHON_KEYRING_BACKEND. With KEYRING_LOCKED set it gives out and takes nothing."""

    priority = 1

    def _secrets(self) -> dict[str, str]:
        if "KEYRING_LOCKED" in os.environ:
            raise KeyringError("it is locked")
        path = Path(os.environ["KEYRING_FILE"])
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _keep(self, secrets: dict[str, str]) -> None:
        Path(os.environ["KEYRING_FILE"]).write_text(json.dumps(secrets))

    def get_password(self, service: str, username: str) -> str | None:
        return self._secrets().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._keep({**self._secrets(), f"{service} {username}": password})

    def delete_password(self, service: str, username: str) -> None:
        secrets = self._secrets()
        if secrets.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError("there is none")
        self._keep(secrets)
