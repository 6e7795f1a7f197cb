"""Where an import got to, in a file: so that the same command goes on where the last one stopped.

One small JSON file for each import (a server, a project, a source and its filters), written whole beside its place and
then moved there: a crash leaves the old one or the new one. Removing it has the next import read everything anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from heartlane.sources.model import Cursor

VERSION: Final = 1


class Kept(NamedTuple):
    """What a journal says.

    cursor      where the next import begins
    finished    whether the last one came to its end
    read        items that the unfinished one has read so far
    """

    cursor: Cursor
    finished: bool
    read: int


class Journal:
    """The journal of one import.

    folder  where journals are; made when something is written
    what    all that makes this import another one than any other, as plain JSON; no secret is in it
    """

    def __init__(self, folder: Path, what: Mapping[str, Any]) -> None:
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
        name = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]
        self.path = folder / f"{what.get('source', 'import')}-{name}.json"
        self._what = what

    def read(self) -> Kept | None:
        """What was kept; None where nothing was, or nothing that can be read."""
        try:
            found = json.loads(self.path.read_text("utf-8"))
            if found["version"] == VERSION and isinstance(found["cursor"], dict):
                return Kept(found["cursor"], bool(found["finished"]), int(found["read"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def write(self, kept: Kept) -> None:
        """Keep this in place of what was kept. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        content = {"version": VERSION, "what": self._what, **kept._asdict()}
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self.path)

    def forget(self) -> None:
        """Begin anew the next time."""
        with suppress(FileNotFoundError):
            self.path.unlink()
