"""How a command in a lane speaks to the worker beside it: one message over the lane's Unix socket, one answer.

Kept to a few modules of the standard library: an agent calls it all day.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from typing import Any, Final, get_args

from heartlane.worker.errors import Kind, WorkerError

ANSWER_SECONDS: Final = 30.0
"""How long the worker may take. It answers at once unless the machine is busy or the lane is frozen."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A lane has a prompt of up to 200,000 characters, and may have hundreds of tickets."""


def ask(message: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Send a message to the worker of this lane; its answer. Raises WorkerError."""
    path = environment.get("HEARTLANE_SOCKET")
    if not path:
        raise WorkerError(
            "this is not a lane: HEARTLANE_SOCKET is not set. It works within a command that heartlane work started",
            "not_in_a_lane",
        )
    line = json.dumps(message, ensure_ascii=True).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(path)
            with contextlib.suppress(BrokenPipeError):  # a worker that refuses its caller says so without reading
                connection.sendall(line)
            answer = _read_line(connection)
    except TimeoutError:
        raise WorkerError(f"the worker did not answer within {ANSWER_SECONDS:.0f} s", "unusable") from None
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        raise WorkerError(
            "the worker of this lane is gone: nobody listens on HEARTLANE_SOCKET", "not_in_a_lane"
        ) from None
    except PermissionError:
        raise WorkerError("the worker of this lane belongs to another user", "not_in_a_lane") from None
    except OSError as error:
        raise WorkerError(f"HEARTLANE_SOCKET can't be used: {error}", "not_in_a_lane") from None
    return _read_answer(answer)


def _read_line(connection: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while not parts or not parts[-1].endswith(b"\n"):
        part = connection.recv(65536)
        size += len(part)
        if not part or size > ANSWER_BYTES_MAX:
            break
        parts.append(part)
    return b"".join(parts)


def _read_answer(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not line.endswith(b"\n"):
        raise WorkerError("the worker ended before it had answered", "unusable")
    if "error" in answer:
        kind: Kind = answer["kind"] if answer.get("kind") in get_args(Kind) else "unusable"
        raise WorkerError(str(answer["error"]), kind)
    return answer
