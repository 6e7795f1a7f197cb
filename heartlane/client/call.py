"""One request to the server, and how its answer is read: nothing here sends anything.

The functions of `heartlane.client.calls` and `heartlane.client.project_calls` build a `Call` each, with the helpers at
the end; `heartlane.client.routes` makes methods of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from heartlane.client.errors import ApiError, BadAnswer, api_error
from heartlane.wire.answers import ErrorAnswer
from heartlane.wire.names import TAKE_UNKNOWN_NAMES

T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)
Id = str | UUID

ANSWER_SECONDS: Final = 30.0
"""How long an ordinary call waits for its answer."""
SHOWN_MAX: Final = 120
"""Characters shown of an answer that is none."""


class Keep:
    """The type of KEEP."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Keep()
"""In a change: leave this field as it is. (None would clear it.)"""


class Page(NamedTuple, Generic[T]):
    """One page of a list, and the cursor of the next; None on the last."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how to read its answer.

    answer      the model of a 2xx answer; None for one that is plain text
    pick        what the caller wants of it
    repeatable  whether doing it twice is the same as once, so that it may be sent again when no answer came
    seconds     how long to wait for the answer
    """

    method: str
    path: str
    answer: type[BaseModel] | None
    pick: Callable[[Any], T]
    query: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, Any] | bytes | None = None
    repeatable: bool = False
    seconds: float = ANSWER_SECONDS

    def content(self) -> bytes | None:
        """The body as it is sent. Raises ValueError for what is no JSON."""
        return self.body if self.body is None or isinstance(self.body, bytes) else to_json(self.body)

    def at(self, cursor: str) -> Call[T]:
        """The same list, from that cursor on."""
        return replace(self, query=(*(pair for pair in self.query if pair[0] != "cursor"), ("cursor", cursor)))


def to_json(value: Any) -> bytes:
    """A value as JSON that the server takes. Raises ValueError or TypeError, before anything is sent, for any other.

    A lone surrogate, as in a file name that is no UTF-8, becomes a question mark.

    >>> to_json({"file": "caf\\udce9", "n": 1})
    b'{"file":"caf?","n":1}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"a time needs its offset from UTC: {value}")
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")


def read_answer(call: Call[T], status: int, headers: Mapping[str, str], content: bytes) -> T:
    """What the caller wants of an answer. Raises ApiError for the server's own errors, BadAnswer for anything else.

    headers     with their names in lower case
    """
    asked = f"{call.method} {call.path}"
    if not 200 <= status < 300:
        raise read_error(asked, status, headers, content)
    try:
        if call.answer is None:
            return call.pick(content.decode())
        return call.pick(call.answer.model_validate_json(content, context={TAKE_UNKNOWN_NAMES: True}))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"]))
        what = f"{where}: {problem['msg']}." if where else _shown(headers, content)
    except ValueError:
        what = _shown(headers, content)
    raise BadAnswer(f"{asked} was answered {status}, but not by Heartlane: {what}", status=status)


def read_error(asked: str, status: int, headers: Mapping[str, str], content: bytes) -> ApiError | BadAnswer:
    """The exception that an answer other than a 2xx becomes. `asked` is what the request was, for the text."""
    retry_after = _retry_after(headers)
    answer = _error_answer(content)
    if answer is None:
        text = f"{asked} was answered {status}, but not by Heartlane: {_shown(headers, content)}"
        if 300 <= status < 400:
            text += f" It redirects to {headers.get('location', 'nowhere')!r}; is the server's address right?"
        return BadAnswer(text, status=status, retry_after=retry_after)
    return api_error(status, answer, retry_after)


def _error_answer(content: bytes) -> ErrorAnswer | None:
    """The error in an answer, None where there is none. Its code counts even where what goes with it can't be read."""
    try:
        value = from_json(content)
    except ValueError:
        return None
    core = {name: value.get(name) for name in ("error", "code")} if isinstance(value, dict) else None
    for shape in (value, core):
        with suppress(ValidationError):
            return ErrorAnswer.model_validate(shape, context={TAKE_UNKNOWN_NAMES: True})
    return None


def _shown(headers: Mapping[str, str], content: bytes) -> str:
    """What an answer is that can't be read: its type, and how it begins."""
    kind = headers.get("content-type", "no type").partition(";")[0].strip()
    begin = " ".join(content[: 4 * SHOWN_MAX].decode("utf-8", "replace").split())[:SHOWN_MAX]
    return f"{kind}, {begin!r}." if begin else f"{kind}, nothing in it."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


# --- for those who build calls ------------------------------------------------------------------------------------


def whole(answer: type[Answer]) -> Callable[[Answer], Answer]:
    """The answer itself, for calls that want all of it."""
    return lambda found: found


def get(path: str, answer: type[Answer], pick: Callable[[Answer], T]) -> Call[T]:
    """A call that reads."""
    return Call("GET", path, answer, pick, repeatable=True)


def listing(
    path: str, answer: type[Answer], items: Callable[[Answer], Sequence[T]], query: tuple[tuple[str, str], ...]
) -> Call[Page[T]]:
    """A call that reads one page of a list."""

    def pick(found: Any) -> Page[T]:
        return Page(items(found), found.next_cursor)

    return Call("GET", path, answer, pick, query=query, repeatable=True)


def post(
    path: str,
    answer: type[Answer],
    pick: Callable[[Answer], T],
    body: Mapping[str, Any] | None,
    *,
    repeatable: bool = False,
) -> Call[T]:
    """A call that does something."""
    return Call("POST", path, answer, pick, body=body, repeatable=repeatable)


def patch(path: str, answer: type[Answer], pick: Callable[[Answer], T], body: Mapping[str, Any]) -> Call[T]:
    """A call that changes something: twice is the same as once."""
    return Call("PATCH", path, answer, pick, body=body, repeatable=True)


def delete(path: str, answer: type[Answer], pick: Callable[[Answer], T]) -> Call[T]:
    """A call that ends something: twice is the same as once."""
    return Call("DELETE", path, answer, pick, repeatable=True)


def put(path: str, answer: type[Answer], pick: Callable[[Answer], T], body: Mapping[str, Any]) -> Call[T]:
    """A call that has something be as it says: twice is the same as once."""
    return Call("PUT", path, answer, pick, body=body, repeatable=True)


def part(id: Id) -> str:
    """An id as one part of a path, whatever is in it."""
    return quote(str(id), safe="")


def given(**fields: Any) -> dict[str, Any]:
    """A body of what isn't None."""
    return {name: value for name, value in fields.items() if value is not None}


def changed(**fields: Any) -> dict[str, Any]:
    """A body of what isn't to be kept."""
    return {name: value for name, value in fields.items() if not isinstance(value, Keep)}


def query_of(**fields: Any) -> tuple[tuple[str, str], ...]:
    """A query of what isn't None."""
    return tuple(
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in fields.items()
        if value is not None
    )
