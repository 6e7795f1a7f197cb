"""Settings of the server: one class that the environment, the flags of `heartlane serve` and the docs all read.

Each field `name` is the variable `HEARTLANE_NAME` and the flag `--name`; a flag goes before the variable. Whatever is
wrong with them is one `SettingsError` with one line to print. No message, log line or `repr` here ever holds the
database's password.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from heartlane.server.egress import Allowed, parse_allowed
from heartlane.server.errors import issues_of
from heartlane.server.limits import RateLimits, parse_rate_limits
from heartlane.server.tls import Certificate
from heartlane.server.vault import KEY_FILE_SUFFIX, Vault, read_keys
from heartlane.wire.networks import Network, parse_networks
from heartlane.wire.variables import CLIENT_VARIABLES, LANE_VARIABLES

PREFIX: Final = "HEARTLANE_"
HOST_NAME: Final = re.compile(r"[A-Za-z0-9._:%-]{1,253}")
PUBLIC_URL: Final = re.compile(r"(?i)https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::\d{1,5})?")
ALLOWED_HOST: Final = re.compile(r"\*|(?:\*\.)?[a-z0-9._-]{1,253}")
MIB: Final = 1024 * 1024


class SettingsError(Exception):
    """A setting that can't be used. Its text is one line that names the setting and says what is wrong with it."""


class DatabaseUrl:
    """Where the data is: `sqlite:///path` or `postgresql://…`. Printed in any way, it shows no password.

    Raises ValueError for anything else, with a reason that doesn't repeat the value.
    """

    __slots__ = ("_url", "dialect", "path")

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.strip().partition("://")
        self.path: Path | None = None
        self.dialect: Literal["sqlite", "postgresql"]
        if separator and scheme == "sqlite":
            if not rest.startswith("/") or rest in ("/", "/:memory:"):
                raise ValueError("must name a file: sqlite:///relative/path or sqlite:////absolute/path")
            if "\0" in rest or "?" in rest:
                raise ValueError("must not hold a ? or a NUL character")
            self.dialect = "sqlite"
            try:
                self.path = Path(rest[1:]).expanduser().absolute()
            except RuntimeError:
                raise ValueError("names the home folder of nobody") from None
            self._url = f"sqlite:///{self.path}"
        elif separator and scheme in ("postgresql", "postgres"):
            self.dialect = "postgresql"
            self._url = f"postgresql://{rest}"
            _check_network_url(self._url)
        else:
            raise ValueError("must begin with sqlite:/// or postgresql://")

    def reveal(self) -> str:
        """The URL with its password, for the driver alone."""
        return self._url

    @property
    def password(self) -> str | None:
        """The password, decoded, or None: for the log's redaction."""
        return _password(self._url) if self.dialect == "postgresql" else None

    def __str__(self) -> str:
        if self.dialect == "sqlite":
            return self._url
        # The user's part ends at the last "@" before the path; settings in the query may hold a password as well.
        head, _, query = self._url.partition("?")
        head = re.sub(r"://([^:@/]*):.*@", r"://\1:***@", head)
        return head + ("?" + re.sub(r"(?i)(password=)[^&]*", r"\1***", query) if query else "")

    def __repr__(self) -> str:
        return f"DatabaseUrl('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseUrl) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    def prepare_folder(self) -> None:
        """Make sure that the file's folder is there. Only the default one is made, for this user alone (0700)."""
        if self.path is None:
            return
        if self.path.is_dir():
            raise SettingsError(f"the database {self.path} is a folder, not a file")
        folder = self.path.parent
        if folder == default_database_path().parent:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(f"can't make the folder of the database, {folder}: {error.strerror}") from None
        if not folder.is_dir():
            raise SettingsError(f"the folder of the database, {folder}, does not exist")


def _check_network_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        if "," not in parts.netloc:
            _ = parts.port
        if "@" in parts.path or "@" in parts.fragment:
            raise ValueError
    except ValueError:
        raise ValueError(
            "is not a valid postgresql:// URL (characters such as @ : / in a password as %40 %3A %2F)"
        ) from None
    if re.search(r"[\s\0]", url):
        raise ValueError("must not hold spaces (write %20)")


def _password(url: str) -> str | None:
    in_query = re.search(r"(?i)[?&]password=([^&]*)", url)
    found = in_query[1] if in_query else urlsplit(url).password
    return unquote(found) if found else None


def default_database_path() -> Path:
    """The file that is used where none is set: in the user's data folder."""
    return user_data_path("heartlane", appauthor=False) / "heartlane.sqlite3"


class DatabaseSettings(BaseSettings):
    """The one setting that every command on the database needs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    database: Annotated[DatabaseUrl, NoDecode] = Field(
        default_factory=lambda: DatabaseUrl(f"sqlite:///{default_database_path()}"),
        description="Where the data is: sqlite:///path or postgresql://user:password@host/name.",
        examples=["a file in the user's data folder"],
    )

    @field_validator("database", mode="before")
    @classmethod
    def _database(cls, value: Any) -> DatabaseUrl:
        return value if isinstance(value, DatabaseUrl) else DatabaseUrl(str(value))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings


class Settings(DatabaseSettings):
    """All settings of `heartlane serve`."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 or :: for every one.")
    port: int = Field(8484, ge=0, le=65_535, description="Port to listen on; 0 takes any free one.")
    tls_cert: Path | None = Field(
        None,
        description="File of the certificate to speak TLS with, as PEM, with those between it and its authority.",
        examples=["none: plain HTTP"],
    )
    tls_key: Path | None = Field(None, description="File of the certificate's key, as PEM.", examples=["none"])
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Server processes that share the port; more than one needs PostgreSQL, and about a core each.",
    )
    rate_limits: Annotated[RateLimits, NoDecode] = Field(
        default_factory=lambda: parse_rate_limits("on"),
        description="on, off, or figures per route, such as report=6000/minute,plan=30/minute.",
        examples=["on"],
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="Addresses or networks of proxies, by comma, whose X-Forwarded-For is believed.",
        examples=["none"],
    )
    public_url: str | None = Field(
        None,
        description="Address by which people reach the board, such as https://lanes.example.com.",
        examples=["the address of each request"],
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Further host names of this server for browsers, by comma; *.example.com for all below; * for any.",
        examples=["those that no other site can have"],
    )
    session_seconds: int = Field(
        7 * 86_400, ge=300, le=90 * 86_400, description="Longest a browser stays logged in, in seconds."
    )
    session_idle_seconds: int = Field(
        43_200, ge=300, le=90 * 86_400, description="How long a browser stays logged in unused, in seconds."
    )
    max_body_bytes: int = Field(
        4 * MIB, ge=64 * 1024, le=256 * MIB, description="Largest request body in bytes; a larger one is a 413."
    )
    ledger_queue_limit: int = Field(
        8_192, ge=1, le=1_000_000, description="Changes that may wait for the database; past it requests get a 503."
    )
    streams_max: int = Field(
        10_000, ge=1, le=1_000_000, description="Event streams open at once, in all; one more is a 503."
    )
    streams_each_max: int = Field(
        5_000, ge=1, le=1_000_000, description="Event streams of one token, and of one address; one more is a 429."
    )
    pool_size: int = Field(
        8, ge=1, le=500, description="Connections to the database for reads, besides those that write."
    )
    take_back_seconds: float = Field(
        1.0,
        ge=0.05,
        le=1.5,
        description="Longest time in seconds between two looks for leases that have run out.",
    )
    shutdown_seconds: float = Field(
        6.0, gt=0, le=10, description="Seconds that accepted requests get to finish after SIGTERM."
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Key that webhooks' secrets are kept with: 32 bytes in base64; several by comma, the first seals.",
        examples=["a file beside the SQLite database"],
    )
    webhooks_allow: Annotated[Allowed, NoDecode] = Field(
        default_factory=Allowed,
        description="Networks, addresses and host names, by comma, that webhooks may lead to without being public.",
        examples=["none"],
    )
    github_webhook_secret: SecretStr | None = Field(
        None,
        description="Secret of GitHub's webhooks to /api/hooks/github; several by comma while it changes.",
        examples=["none: no webhooks are taken"],
    )
    github_token: SecretStr | None = Field(
        None,
        description="Token with which the server itself imports issues from GitHub.",
        examples=["none: only what is public is seen"],
    )
    github_api_url: str = Field(
        "https://api.github.com", description="Address of GitHub's API; https://HOST/api/v3 for an Enterprise Server."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged; debug logs every report."
    )
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="human or json; auto is human on a terminal, json otherwise."
    )

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        host = value.strip("[] ")
        if not HOST_NAME.fullmatch(host):
            raise ValueError("must be an address or a host name")
        return host

    def certificate(self) -> Certificate | None:
        """What to speak TLS with; None for plain HTTP. Raises SettingsError where a half of it is missing."""
        if self.tls_cert is None and self.tls_key is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            missing = "TLS_KEY" if self.tls_key is None else "TLS_CERT"
            raise SettingsError(f"{PREFIX}{missing} is missing: the certificate and its key belong together")
        return Certificate(self.tls_cert.expanduser(), self.tls_key.expanduser())

    @field_validator("rate_limits", mode="before")
    @classmethod
    def _rate_limits(cls, value: Any) -> RateLimits:
        return value if isinstance(value, RateLimits) else parse_rate_limits(str(value))

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _trusted_proxies(cls, value: Any) -> Any:
        return parse_networks(value) if isinstance(value, str) else value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = value.strip().rstrip("/")
        if not PUBLIC_URL.fullmatch(url):
            raise ValueError("must be an address such as https://lanes.example.com, without a path")
        return url.lower()

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _allowed_hosts(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(part.strip().lower() for part in value.split(",") if part.strip())
        if not all(ALLOWED_HOST.fullmatch(name) for name in names):
            raise ValueError("must be host names such as lanes.example.com, by comma, without a port; or *")
        return names

    @field_validator("secret_key")
    @classmethod
    def _secret_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not read_keys(value.get_secret_value()):
            raise ValueError("must name a key")
        return value

    @field_validator("webhooks_allow", mode="before")
    @classmethod
    def _webhooks_allow(cls, value: Any) -> Any:
        return parse_allowed(value) if isinstance(value, str) else value

    def secret_keys(self) -> list[str]:
        """The keys of `secret_key`; none where it isn't set."""
        return [] if self.secret_key is None else read_keys(self.secret_key.get_secret_value())

    def vault(self) -> Vault:
        """What seals secrets, with the keys that are set or, on SQLite, the file beside the database."""
        path = self.database.path
        return Vault(self.secret_keys(), None if path is None else path.with_name(path.name + KEY_FILE_SUFFIX))

    @field_validator("github_webhook_secret", "github_token")
    @classmethod
    def _github_secret(cls, value: SecretStr | None) -> SecretStr | None:
        for part in [] if value is None else value.get_secret_value().split(","):
            if not 16 <= len(part.strip()) <= 500 or not part.strip().isascii() or not part.strip().isprintable():
                raise ValueError("must be 16 to 500 printable characters")
        return value

    @field_validator("github_api_url")
    @classmethod
    def _github_api_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError("must be an address such as https://api.github.com")
        return value.rstrip("/")

    def github_secrets(self) -> list[str]:
        """The secrets that GitHub's webhooks may be signed with; none where none are taken."""
        return _parts_of(self.github_webhook_secret)

    def own_secrets(self) -> list[str]:
        """Every secret among the settings but the database's, for the log's redaction."""
        return [*_parts_of(self.github_webhook_secret), *_parts_of(self.github_token)]

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


def _parts_of(secret: SecretStr | None) -> list[str]:
    return [] if secret is None else [part.strip() for part in secret.get_secret_value().split(",")]


Loaded = TypeVar("Loaded", bound=DatabaseSettings)


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings from flags (field name → value; None where not given), the environment and the defaults.

    Raises SettingsError for a wrong value, or a variable with our prefix that no setting has.
    """
    _refuse_unknown(os.environ)
    return _load(Settings, flags or {})


def load_database(flag: str | None = None) -> DatabaseUrl:
    """The database alone, for commands that need nothing else: other settings may be wrong. Raises SettingsError."""
    return _load(DatabaseSettings, {"database": flag}).database


def _load(kind: type[Loaded], flags: Mapping[str, Any]) -> Loaded:
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as failure:
        issue = issues_of(failure.errors(include_url=False, include_input=False))[0]
        name = issue.path.split(".")[0]
        shown = f"--{name.replace('_', '-')}" if name in given else PREFIX + name.upper()
        raise SettingsError(f"{shown} {issue.message}") from None


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    clients = {*CLIENT_VARIABLES, *LANE_VARIABLES}  # a server may be started beside a worker, or by an agent in a lane
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in known or name in clients:
            continue
        close = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"; did you mean {close[0]}?" if close else "; `heartlane serve --help` lists them"
        raise SettingsError(f"{variable} is not a setting of Heartlane{hint}")
