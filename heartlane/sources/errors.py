"""What can go wrong with a source. Every text is one sentence for a person, and holds no token.

SourceError
├── SourceRefused    the source says no: a bad token, no such thing, a query that it doesn't take
├── SourceDown       no answer, or none that can be read, for as long as we were patient
├── SourceLimited    a rate limit, and nobody wants to wait for it
└── BadFile          a file whose rows can't be taken; `problems` has all of them
"""

from __future__ import annotations

from collections.abc import Sequence


class SourceError(Exception):
    """Whatever stops an import at its source. What was imported before stays, and the cursor is kept."""


class SourceRefused(SourceError):
    """The source says no, and will say so again.

    token   whether it is the token that it refuses
    hidden  whether it says that there is no such thing, as it does of what the token may not see
    """

    def __init__(self, text: str, *, token: bool = False, hidden: bool = False) -> None:
        super().__init__(text)
        self.token = token
        self.hidden = hidden


class SourceDown(SourceError):
    """The source gave no answer that can be read; it may later."""


class SourceLimited(SourceError):
    """The source wants us to wait.

    seconds     how long
    """

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class BadFile(SourceError):
    """A file that can't be taken. Nothing of it was imported.

    problems    each as its place (`line 3`) and what is wrong there, in the order of the file
    """

    def __init__(self, text: str, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.problems = problems
