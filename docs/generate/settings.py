"""Every setting of the server, from the class that reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from docs.generate.markdown import code, table
from heartlane.cli.serve import flag_of
from heartlane.server.limits import ROUTES
from heartlane.server.settings import PREFIX, Settings

EXAMPLES: Final[Mapping[str, str]] = {
    "database": "postgresql://heartlane:secret@db.example/heartlane",
    "host": "0.0.0.0",  # noqa: S104 - an example of what may be set
    "port": "8080",
    "tls_cert": "lanes.example.com.pem",
    "tls_key": "lanes.example.com.key",
    "rate_limits": "report=6000/minute,plan=off",
    "trusted_proxies": "127.0.0.1,10.0.0.0/8",
    "public_url": "https://lanes.example.com",
    "allowed_hosts": "lanes.example.com,*.lanes.example.com",
    "session_seconds": "2592000",
    "session_idle_seconds": "3600",
    "max_body_bytes": "8388608",
    "ledger_queue_limit": "20000",
    "streams_max": "20000",
    "streams_each_max": "1000",
    "processes": "4",
    "pool_size": "16",
    "take_back_seconds": "0.5",
    "shutdown_seconds": "5",
    "secret_key": "3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=",
    "webhooks_allow": "10.20.0.0/16,hooks.internal",
    "github_webhook_secret": "5f1d8a2c9e7b4f60a3d2c1b0",
    "github_token": "github-token-of-a-machine-user",
    "github_api_url": "https://github.example.com/api/v3",
    "log_level": "debug",
    "log_format": "json",
}
"""Setting → a value that somebody may want to set; a test loads each."""

VALUES: Final[Mapping[str, str]] = {
    "database": "`sqlite:///relative/path`, `sqlite:////absolute/path`, or `postgresql://user:password@host:port/name`",
    "host": "an address or a host name",
    "github_webhook_secret": "16 to 500 characters; several by comma",
    "github_token": "a fine-grained or classic personal access token",
    "github_api_url": "an address",
    "tls_cert": "a file that this server's user can read",
    "tls_key": "a file that this server's user alone can read, without a password",
    "rate_limits": "`on`, `off`, or figures by [name](#rate-limits-by-name), by comma",
    "trusted_proxies": "addresses and networks, by comma",
    "public_url": "an address with `http://` or `https://`, without a path",
    "allowed_hosts": "host names without ports, by comma; `*.` before one takes in all below it; `*` is any name",
    "secret_key": "what `openssl rand -base64 32` prints; several by comma while keys change",
    "webhooks_allow": "networks, addresses and host names, by comma",
}
"""Setting → what it may be, where its type alone doesn't say so."""

_BOUNDS: Final = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_TYPED: Final = re.compile(r"((?:sqlite|postgresql):///?\S*[a-z]|report=\S+[a-z]|0\.0\.0\.0|::|X-Forwarded-For)")


def reference() -> str:
    """A table of all settings, then each under a heading of its own."""
    fields = Settings.model_fields
    rows = [
        [f"[{code(variable(name))}](#{name})", code(flag_of(name)), default(info), _meaning(info)]
        for name, info in fields.items()
    ]
    parts = [table(["variable", "flag", "default", "meaning"], rows)]
    parts += [_section(name, info) for name, info in fields.items()]
    return "\n\n".join(parts)


def rate_limits() -> str:
    """The name and the figure of each rate limit."""
    rows = [[code(name), f"{amount:,}", covered] for name, (amount, covered) in ROUTES.items()]
    return table(["name", "requests a minute", "covers"], rows)


def variable(name: str) -> str:
    """The variable that sets a field.

    >>> variable("log_level")
    'HEARTLANE_LOG_LEVEL'
    """
    return PREFIX + name.upper()


def default(info: FieldInfo) -> str:
    """A setting's default in words."""
    if info.examples:
        text = str(info.examples[0])
        return text if " " in text else code(text)
    return code(info.default)


def values(name: str, info: FieldInfo) -> str:
    """What a setting may be, in words. Raises KeyError where its type doesn't say so and VALUES has nothing."""
    annotation: Any = info.annotation
    if get_origin(annotation) is Literal:
        return ", ".join(map(code, get_args(annotation)))
    said = [
        f"{words} {limit:,}"
        for constraint in info.metadata
        for attribute, words in _BOUNDS.items()
        if (limit := getattr(constraint, attribute, None)) is not None
    ]
    if not said:
        return VALUES[name]
    return ("a whole number, " if annotation is int else "a number, ") + ", ".join(said)


def _section(name: str, info: FieldInfo) -> str:
    lines = [
        f"### {name}\n\n{_meaning(info)}\n",
        f"- Variable: {code(variable(name))}",
        f"- Flag: {code(flag_of(name))}",
        f"- Default: {default(info)}",
        f"- Values: {values(name, info)}",
        f"- Example: {code(f'{variable(name)}={EXAMPLES[name]}')}",
    ]
    return "\n".join(lines)


def _meaning(info: FieldInfo) -> str:
    """The description, with what is to be typed set as code."""
    return _TYPED.sub(r"`\1`", info.description or "")
