"""The board's files as they are served: read once, compressed once, under an address that changes with their content.

All of them stand in one flat folder under one version, the digest of every file. So modules import each other by plain
relative names without a build, and each file may be kept by browsers for ever.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from fastapi import Request
from starlette.responses import Response

from heartlane.server.docs_page import SECURITY_HEADERS, TYPES

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Beside holding browsers to our files, no text can become markup: where trusted types are known, such calls fail."""
HEADERS: Final = {**SECURITY_HEADERS, "content-security-policy": POLICY, "vary": "accept-encoding"}
MEDIA_TYPES: Final = {**TYPES, "svg": "image/svg+xml"}
FOREVER: Final = "public, max-age=31536000, immutable"


class File(NamedTuple):
    """A file's content, plain and compressed, and the tag of it."""

    body: bytes
    compressed: bytes
    media_type: str
    etag: str


def make_file(body: bytes, suffix: str) -> File:
    """A file of this content; `suffix` is one of MEDIA_TYPES."""
    digest = hashlib.sha256(body).hexdigest()[:32]
    return File(body, gzip.compress(body, 9, mtime=0), MEDIA_TYPES[suffix], f'"{digest}"')


class Assets(NamedTuple):
    """Every static file by name, and the version that stands in their addresses."""

    version: str
    files: Mapping[str, File]

    def url(self, name: str) -> str:
        """The address of a file. Raises KeyError for one that isn't there."""
        if name not in self.files:
            raise KeyError(name)
        return f"/static/{self.version}/{name}"


@cache
def load_assets() -> Assets:
    """The package's static files."""
    folder = resources.files("heartlane.board").joinpath("static")
    files = {
        item.name: make_file(item.read_bytes(), item.name.rpartition(".")[2])
        for item in folder.iterdir()
        if item.name.rpartition(".")[2] in MEDIA_TYPES
    }
    whole = hashlib.sha256("".join(f"{name}{files[name].etag}" for name in sorted(files)).encode())
    return Assets(whole.hexdigest()[:12], files)


def respond(request: Request, file: File, cache_control: str) -> Response:
    """The file, compressed for who takes it, or 304 for a browser that has it already."""
    headers = {**HEADERS, "etag": file.etag, "cache-control": cache_control}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.compressed, media_type=file.media_type, headers={**headers, "content-encoding": "gzip"})
    return Response(file.body, media_type=file.media_type, headers=headers)
