"""The certificate that a server shows: checked before it listens, so that what is wrong with it is one line."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """The files of a certificate (with those between it and its authority, in this order) and of its key, as PEM."""

    cert: Path
    key: Path


class BadCertificate(Exception):
    """The certificate or its key can't be used. The text is one line that says which and why."""


def check(certificate: Certificate) -> None:
    """Raise BadCertificate for files that can't be read, aren't a pair, or whose key asks for a password."""
    for path, what in ((certificate.cert, "certificate"), (certificate.key, "key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise BadCertificate(f"Can't read the TLS {what} {path}: {error.strerror}.") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Asked for a password, OpenSSL would turn to the terminal.
        context.load_cert_chain(certificate.cert, certificate.key, password=_refuse)
    except _Locked:
        raise BadCertificate(f"The TLS key {certificate.key} is locked with a password; give one that isn't.") from None
    except ssl.SSLError as error:
        reason = "it is another certificate's" if error.reason == "KEY_VALUES_MISMATCH" else error.reason or str(error)
        raise BadCertificate(
            f"Can't use the TLS certificate {certificate.cert} with the key {certificate.key}: {reason}."
        ) from None


class _Locked(Exception):
    pass


def _refuse() -> str:
    raise _Locked
