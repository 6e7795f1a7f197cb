"""The agent's command with its placeholders filled in: `claude -p "{prompt}"`. Pure.

The command is a list of arguments and never goes through a shell, so that nothing a prompt says is ever executed. Each
known `{name}` in an argument is replaced; everything else in braces stays as it is, and `{{prompt}}` stands for the
plain text `{prompt}`. The first argument, the program, is taken as it is.

With `--shell` the command is one text for /bin/sh, and every value is quoted for it. That holds only where the text
itself does not quote, so a placeholder within quotes, backticks or after `<<` is refused.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from heartlane.worker.errors import WorkerError

PLACEHOLDERS: Final[Mapping[str, str]] = {
    "prompt": "The prompt, followed by what the last attempt left.",
    "prompt_file": "Path of a file with the same text, for prompts of any length.",
    "title": "The lane's title.",
    "lane_key": "The lane's name within its plan.",
    "role": "The lane's role.",
    "run_id": "The run's id.",
    "attempt": "Number of this claim.",
    "branch": "The lane's branch; empty without --worktree.",
}
SHELL: Final = "/bin/sh"

_PLACEHOLDER: Final = re.compile(r"\{\{(" + "|".join(PLACEHOLDERS) + r")\}\}|\{(" + "|".join(PLACEHOLDERS) + r")\}")


def values_of(
    run: Mapping[str, Any], *, prompt: str, prompt_file: str = "", branch: str | None = None
) -> dict[str, str]:
    """What each placeholder stands for."""
    return {
        "prompt": prompt,
        "prompt_file": prompt_file,
        "title": str(run.get("title") or ""),
        "lane_key": str(run.get("lane_key") or ""),
        "role": str(run.get("role") or ""),
        "run_id": str(run.get("id") or ""),
        "attempt": str(run.get("attempt") or ""),
        "branch": branch or "",
    }


def filled(command: Sequence[str], values: Mapping[str, str], *, by_shell: bool = False) -> list[str]:
    """The command to execute. Raises WorkerError (`prompt_unusable`, `wrong_input`).

    >>> filled(["agent", "{title}", '{"role": "{role}", "x": {y}}'], {"title": "a b; rm c", "role": "qa"})
    ['agent', 'a b; rm c', '{"role": "qa", "x": {y}}']
    >>> filled(["agent {title} | tee log"], {"title": "a b; rm c"}, by_shell=True)
    ['/bin/sh', '-c', "agent 'a b; rm c' | tee log"]
    """
    if not command:
        raise WorkerError("no command is given: put it after --, as in -- my-agent {prompt}", "wrong_input")
    if by_shell:
        arguments = [SHELL, "-c", _filled_shell(" ".join(command), values)]
    else:
        arguments = [command[0], *(_filled_argument(argument, values) for argument in command[1:])]
    _check(arguments)
    return arguments


def names_placeholder(command: Sequence[str], name: str) -> bool:
    """Whether the command asks for a placeholder, say `{branch}`, which only a worktree gives.

    >>> names_placeholder(["agent", "--on={branch}"], "branch"), names_placeholder(["agent", "{{branch}}"], "branch")
    (True, False)
    """
    return any(found[2] == name for argument in command for found in _PLACEHOLDER.finditer(argument))


def _filled_argument(argument: str, values: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] is not None:
            return "{" + found[1] + "}"
        text = values.get(found[2], found[0])
        # A value that begins with a dash, a Markdown list say, must not be taken for an option.
        return f" {text}" if found.start() == 0 and text.startswith("-") else text

    return _PLACEHOLDER.sub(value, argument)


# --- with a shell -------------------------------------------------------------------------------------------------

_PLAIN: Final = r"[A-Za-z0-9_:=?+%/.,@ \n-]*"
_SIMPLE_SUBSTITUTION: Final = re.compile(rf"\$\{{[A-Za-z0-9_#?!@*]{_PLAIN}\}}|\$\({_PLAIN}\)|`{_PLAIN}`")
"""A substitution that nests nothing and quotes nothing, so that the quotes around it go on after it."""
_CLOSING: Final[Mapping[str, str]] = {"single quotes": "'", "double quotes": '"', "backticks": "`", "a comment": "\n"}
_TO_THE_END: Final = frozenset({"a here-document", "a nested substitution"})
"""Where these end is for the shell to say; what comes after them counts as within."""


def _filled_shell(text: str, values: Mapping[str, str]) -> str:
    within = _within(text)

    def value(found: re.Match[str]) -> str:
        place = found.start()
        if found[1] is not None:
            return "{" + found[1] + "}"
        if found[2] not in values or text[:place].endswith("$"):  # ${title} is a variable of the shell's own
            return found[0]
        if within[place]:
            raise WorkerError(
                f"{found[0]} stands within {within[place]} of the --shell command, where it can't be quoted safely: "
                'write it bare, or use "$HEARTLANE_TITLE", "$HEARTLANE_PROMPT_FILE" and the like there',
                "wrong_input",
            )
        filling = values[found[2]]
        begins_word = place == 0 or text[place - 1].isspace()
        return shlex.quote(f" {filling}" if begins_word and filling.startswith("-") else filling)

    return _PLACEHOLDER.sub(value, text)


def _within(text: str) -> list[str]:
    """For each character of a shell text what it stands within, "" where a quoted value may stand.

    It errs towards refusing: a text that it can't follow counts as quoted to its end.
    """
    places: list[str] = []
    state, word_begins = "", True
    while len(places) < len(text):
        place = len(places)
        character = text[place]
        simple = _SIMPLE_SUBSTITUTION.match(text, place) if state in ("", "double quotes") else None
        if simple is not None:
            places += [state or "a substitution"] * len(simple[0])
            word_begins = False
            continue
        if character == "\\" and state in ("", "double quotes", "backticks"):
            places += [state, state or "an escape"]
            word_begins = False
            continue
        places.append(state)
        if state == "":
            state = _opened(text, place, word_begins=word_begins)
        elif state == "double quotes" and (character == "`" or text.startswith(("$(", "${"), place)):
            state = "a nested substitution"
        elif character == _CLOSING.get(state):
            state = ""
        word_begins = character in " \t\n;&|("
    return places


def _opened(text: str, place: int, *, word_begins: bool) -> str:
    """What begins with this character of a bare text."""
    if text.startswith("<<", place):
        return "a here-document"
    if text.startswith(("${", "$'", '$"', "((", "$["), place):  # arithmetic looks into quotes
        return "a nested substitution"
    opened = {"'": "single quotes", '"': "double quotes", "`": "backticks"}.get(text[place], "")
    return "a comment" if text[place] == "#" and word_begins else opened


# --- what the system takes ----------------------------------------------------------------------------------------

ENVIRONMENT_BYTES_KEPT: Final = 65_536
"""Left for the environment, which shares the system's bound with the arguments."""
_POINTER_BYTES: Final = 8


def argument_bytes_max() -> int:
    """Most bytes of one argument. Linux bounds each argument at 32 pages, beside the bound for all of them."""
    everything = _all_bytes_max()
    return min(32 * _sysconf("SC_PAGE_SIZE", 4096) - 1, everything) if sys.platform == "linux" else everything


def _all_bytes_max() -> int:
    return _sysconf("SC_ARG_MAX", 1024 * 1024) - ENVIRONMENT_BYTES_KEPT


def _sysconf(name: str, otherwise: int) -> int:
    try:
        value = os.sysconf(name)
    except (OSError, ValueError):
        return otherwise
    return value if value > 0 else otherwise


def _check(arguments: Sequence[str]) -> None:
    total = 0
    for argument in arguments:
        if "\0" in argument:
            raise WorkerError("the command would hold a NUL character, which no system takes", "prompt_unusable")
        try:
            size = len(os.fsencode(argument))
        except UnicodeEncodeError:
            raise WorkerError(
                f"the prompt has characters that this system's encoding ({sys.getfilesystemencoding()}) lacks: "
                "set LC_ALL=C.UTF-8, or give the agent {prompt_file} in place of {prompt}",
                "prompt_unusable",
            ) from None
        if size > argument_bytes_max():
            raise _too_long(f"an argument would be {size:,} bytes long, and this system takes {argument_bytes_max():,}")
        total += size + 1 + _POINTER_BYTES
    if total > _all_bytes_max():
        raise _too_long(f"the arguments would be {total:,} bytes long, and this system takes {_all_bytes_max():,}")


def _too_long(what: str) -> WorkerError:
    return WorkerError(
        f"the prompt is too long for the command: {what}. Give the agent the file instead, with {{prompt_file}} in "
        "place of {prompt} (its standard input is closed, so it can't come that way)",
        "prompt_unusable",
    )
