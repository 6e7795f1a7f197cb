"""What a process prints, made fit to read: plain text of bounded length, whatever the bytes were.

Everything that a worker sends of an agent's output goes through here. Colours and cursor movements are gone, a progress
bar is left in its last state, control characters and marks that turn the direction of the text are shown instead of
obeyed, and what is too long is cut with a mark that says how much is missing. The results can always be encoded.
"""

from __future__ import annotations

import re
from typing import Final

from heartlane.lanes.bounds import LOG_LINE_MAX

WORK_MAX: Final = 65_536
"""Characters of one text that are looked at; what lies behind is only counted: a line of any size costs little."""

# CSI; OSC with its end, or cut; DCS, SOS, PM, APC; the two-character escapes; the 8-bit CSI.
_ANSI: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-?]*[ -/]*[@-~]?"
)
# "Back to the first column", as progress bars say it that don't use a carriage return.
_TO_COLUMN_ONE: Final = re.compile(r"\x1b\[[01]?G")
# Control characters but tab and line feed, the marks of direction, line and paragraph separators, and lone surrogates.
_ODD: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NEW_LINES: Final = frozenset("\x0b\x0c\x85\u2028\u2029")
_REPLACEMENT: Final = "\ufffd"


def readable(text: str, limit: int = LOG_LINE_MAX) -> str:
    """A text of any number of lines, plain and at most `limit` characters long, without blank lines at its ends.

    >>> readable("\\x1b[1mdone\\x1b[0m")
    'done'
    """
    if len(text) <= limit and text.isprintable():
        return text.rstrip()
    looked_at = text[: max(WORK_MAX, 2 * limit)]
    unseen = len(text) - len(looked_at)
    if "\r" in looked_at:
        looked_at = looked_at.replace("\r\n", "\n")
    if "\r" in looked_at or "\x1b[" in looked_at:
        looked_at = "\n".join(_last_state(line) for line in looked_at.split("\n"))
    return clip(plain(looked_at).lstrip("\n").rstrip(), limit, unseen)


def raw_line(line: str, limit: int = LOG_LINE_MAX) -> str:
    """One line as a process printed it, plain and at most `limit` characters long; "" for a blank one.

    Its end may be there or not. Of a line that was written over by carriage returns, what was left on the screen last.
    """
    line = line.rstrip("\r\n")
    if len(line) > WORK_MAX and "\r" in line:
        # The last state stands at the end; the beginning of such a line was overwritten long ago.
        line = line[-WORK_MAX:].partition("\r")[2] or line
    return readable(line, limit)


def plain(text: str) -> str:
    """The text without escape sequences, with what remains of control characters shown as signs."""
    if "\x1b" in text or "\x9b" in text:
        text = _ANSI.sub("", text)
    if "\b" in text:
        text = _rubbed_out(text)
    return _ODD.sub(_sign, text)


def clip(text: str, limit: int, unseen: int = 0) -> str:
    """The text, cut to `limit` characters with a mark of how many were left out; `unseen` more are behind its end.

    >>> clip("a" * 3000, 40)
    'aaaaaaaaaaa… [2,989 characters left out]'
    """
    if len(text) <= limit and not unseen:
        return text
    # The mark's own length depends on the number in it, by a digit or two: take the room that the largest one needs.
    room = len(_mark(len(text) + unseen))
    kept = text[: max(limit - room, 0)]
    return (kept + _mark(len(text) - len(kept) + unseen))[:limit]


def last_lines(text: str, limit: int) -> str:
    """The end of a text that is at most `limit` characters long, from the beginning of a line on where there is one."""
    text = readable(text[-WORK_MAX:], WORK_MAX)
    if len(text) <= limit:
        return text
    end = text[-limit:]
    return end.partition("\n")[2] or end


def _mark(count: int) -> str:
    return f"… [{count:,} characters left out]"


def _last_state(line: str) -> str:
    """What a line shows in the end that goes back to its first column."""
    if "\x1b[" in line:
        line = _TO_COLUMN_ONE.sub("\r", line)
    if "\r" not in line:
        return line
    states = line.split("\r")
    for state in reversed(states):
        if _ANSI.sub("", state).strip():
            return state
    return states[-1]


def _rubbed_out(text: str) -> str:
    """With backspaces carried out, as spinners use them."""
    shown: list[str] = []
    for character in text:
        if character != "\b":
            shown.append(character)
        elif shown and shown[-1] != "\n":
            shown.pop()
    return "".join(shown)


def _sign(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _NEW_LINES:
        return "\n"
    if code < 0x20:
        return chr(0x2400 + code)  # the Unicode picture of it: ␀ ␇ ␛
    if code == 0x7F:
        return "\u2421"
    if code < 0xA0 or 0xD800 <= code <= 0xDFFF:
        return _REPLACEMENT
    return f"<U+{code:04X}>"
