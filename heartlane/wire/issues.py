"""What is wrong with an input, in plain words: pydantic's findings as the issues of an error answer.

The server says so of bodies, the command line of files before it sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

PATH_MAX: Final = 300
"""Characters of an issue's path: its parts may be keys that the client chose."""


class Issue(NamedTuple):
    """One problem of a request: where (`events.3.type`, or `body` for the whole) and what, as a plain predicate."""

    path: str
    message: str


def issues_of(errors: Iterable[Mapping[str, Any]], *, skip: int = 0) -> list[Issue]:
    """Pydantic's error details as issues; `skip` leaves out leading parts of their locations (FastAPI's `body`)."""
    return [Issue(_path(error["loc"][skip:]), _message(error)) for error in errors]


def _path(location: Sequence[int | str]) -> str:
    if not location:
        return "body"
    path = ".".join(map(str, location))
    return path if len(path) <= PATH_MAX else path[: PATH_MAX - 1] + "…"


_MESSAGES: Final = {
    "missing": "is required",
    "extra_forbidden": "is not known here",
    "invalid_key": "must have strings as keys",
    "json_invalid": "is not valid JSON",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of at most 64 bits",
    "int_from_float": "must be an integer, without a fraction",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "none_required": "must be null",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "uuid_version": "must be a UUID",
    "datetime_type": "must be an RFC 3339 date-time",
    "datetime_parsing": "must be an RFC 3339 date-time",
    "datetime_from_date_parsing": "must be an RFC 3339 date-time",
    "datetime_object_invalid": "must be an RFC 3339 date-time",
    "timezone_aware": "must name its offset from UTC, say Z",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
    "set_type": "must be an array",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dataclass_type": "must be an object",
}


def _message(error: Mapping[str, Any]) -> str:
    kind: str = error["type"]
    plain = _MESSAGES.get(kind)
    if plain is not None:
        return plain
    context: Mapping[str, Any] = error.get("ctx") or {}
    match kind:
        case "string_too_short":
            least = context["min_length"]
            return "must not be empty" if least == 1 else f"must be at least {least} characters long"
        case "string_too_long":
            return f"must be at most {context['max_length']} characters long"
        case "too_short":
            return f"must have at least {_items(context['min_length'])}"
        case "too_long":
            return f"must have at most {_items(context['max_length'])}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "greater_than":
            return f"must be more than {context['gt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "less_than":
            return f"must be less than {context['lt']}"
        case "literal_error" | "enum":
            return f"must be one of {context['expected']}".replace("'", "")
        case "value_error" | "assertion_error":
            return str(context.get("error", "is not valid"))
    message = str(error.get("msg", "is not valid"))
    return message.replace("Input should", "must").replace("String should", "must")


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
