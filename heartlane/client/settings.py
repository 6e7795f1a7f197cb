"""Where the server is, who we are, and how to reach it.

Arguments go before the environment (HEARTLANE_URL, HEARTLANE_TOKEN), and that before what `heartlane login` keeps.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from heartlane.client.errors import NotConfigured

URL_VARIABLE: Final = "HEARTLANE_URL"
TOKEN_VARIABLE: Final = "HEARTLANE_TOKEN"  # noqa: S105 - the variable's name
MASK: Final = "***"
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,500}")


class Secret:
    """A token. Printed in any way, it doesn't show itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The token itself, for the request's header alone."""
        return self._value

    def hide_in(self, text: str) -> str:
        """The text without the token, should it stand there."""
        return text.replace(self._value, MASK)

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        raise TypeError("a secret is not pickled")


def server_url(given: str | None) -> str:
    """The server's address without a slash at its end. Raises NotConfigured."""
    url = (given or os.environ.get(URL_VARIABLE, "")).strip() or _stored_url()
    if not url:
        raise NotConfigured(
            f"No server is named: pass url=…, set {URL_VARIABLE} (say http://127.0.0.1:8484), or `heartlane login`."
        )
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    else:
        if "@" in parts.netloc:
            raise NotConfigured("The server's address must not hold a name or password; the token says who calls.")
        valid = valid and not (parts.query or parts.fragment) and not re.search(r"[\s\x00-\x1f]", url)
    if not valid:
        raise NotConfigured(f"{url!r} is no server's address; it looks like http://127.0.0.1:8484.")
    # Who pastes the API's address means the server's.
    return url.rstrip("/").removesuffix("/api").rstrip("/")


def server_token(given: str | None, url: str) -> Secret:
    """The token for the server at `url`, as `server_url` gives it. Raises NotConfigured, without repeating a token."""
    token = (given or os.environ.get(TOKEN_VARIABLE, "")).strip() or _stored_token(url)
    if not token:
        raise NotConfigured(
            f"There is no token: pass token=…, set {TOKEN_VARIABLE}, or `heartlane login`. "
            "`heartlane token create NAME` makes one."
        )
    if not _TOKEN.fullmatch(token):
        raise NotConfigured("The token has characters that no token has; is it cut off, or two in one?")
    return Secret(token)


def _stored_url() -> str:
    from heartlane.client.logins import current_url  # noqa: PLC0415 - only where the environment doesn't say enough

    return current_url() or ""


def _stored_token(url: str) -> str:
    from heartlane.client.logins import stored_token  # noqa: PLC0415

    return stored_token(url) or ""


def tls_context(verify: ssl.SSLContext | str | os.PathLike[str] | bool) -> ssl.SSLContext | bool:
    """How the server's certificate is checked: True by the system's authorities, a path by the file or folder of one's
    own, a context as it says, False not at all. Raises NotConfigured."""
    if not isinstance(verify, (str, os.PathLike)):
        return verify
    path = Path(verify)
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise NotConfigured(f"Can't read the certificates in {path}: {error}") from None
