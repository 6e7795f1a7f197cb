"""What a request body may be declared as: plain JSON, in UTF-8, uncompressed, of a bounded size."""

from __future__ import annotations

from heartlane.server.errors import ApiError


def check_content_type(value: bytes) -> None:
    """Raise the 415 of a `Content-Type` that is not `application/json` (or `application/…+json`) in UTF-8."""
    kind, _, parameters = value.lower().partition(b";")
    kind = kind.strip()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        raise ApiError("UNSUPPORTED_MEDIA_TYPE", "Send the body as application/json.")
    charset = parameters.partition(b"charset=")[2].split(b";")[0].strip(b" \"'")
    if charset not in (b"", b"utf-8", b"utf8"):
        raise ApiError("UNSUPPORTED_MEDIA_TYPE", "Send the body in UTF-8.")


def check_content_encoding(value: bytes) -> None:
    """Raise the 415 of a body that is declared as compressed."""
    if value.strip().lower() not in (b"", b"identity"):
        raise ApiError("UNSUPPORTED_MEDIA_TYPE", "Send the body uncompressed, without Content-Encoding.")


def declared_size(value: bytes | None) -> int:
    """The bytes that a `Content-Length` announces; 0 where it announces none or makes no sense."""
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else 0


def too_large(size_max: int) -> ApiError:
    """The 413 of a body of more than `size_max` bytes."""
    return ApiError("PAYLOAD_TOO_LARGE", f"The body is larger than {size_max} bytes.")
