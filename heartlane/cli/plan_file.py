"""A plan's file: read, with all that is wrong with it found at once, each with its line, before anything is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from heartlane.cli.errors import UNUSABLE, CommandError, Problem
from heartlane.cli.plan_text import BadText, Parsed, Place, parse
from heartlane.lanes import bounds
from heartlane.lanes.planning import Lane, problems
from heartlane.wire.issues import issues_of
from heartlane.wire.plan_file import PlanFile

BYTES_MAX: Final = 64 * 1024 * 1024
STDIN: Final = "-"


class Plan(NamedTuple):
    """A file that is a plan.

    name        what the file is called in messages
    plan        what it says
    lanes       its lanes as the API takes them, prompts read
    """

    name: str
    plan: PlanFile
    lanes: list[dict[str, Any]]
    parsed: Parsed

    def refused(self, issues: Iterable[tuple[str, str]]) -> CommandError:
        """The error of a plan that a server refused, with the lines of what it names."""
        names = {"projectId": "project", "milestoneId": "milestone"}
        return _wrong(
            self.name,
            [
                Problem(names.get(path, path), message, self.name, self.parsed.line_of(_place(names.get(path, path))))
                for path, message in issues
            ],
        )


def read(path: str) -> Plan:
    """Read a plan's file, or standard input for `-`. Raises CommandError with every problem that it has."""
    name = "standard input" if path == STDIN else path
    folder = Path() if path == STDIN else Path(path).parent
    try:
        parsed = parse(_text(path, name))
    except BadText as error:
        raise _wrong(name, [Problem("", str(error), name, error.line)]) from None
    try:
        plan = PlanFile.model_validate(parsed.value)
    except ValidationError as failure:
        found = failure.errors(include_url=False)
        issues = issues_of(found)
        raise _wrong(
            name,
            [
                Problem(
                    "" if issue.path == "body" else issue.path,
                    _in_yaml(issue.message, error.get("input")),
                    name,
                    parsed.line_of(error["loc"]),
                )
                for error, issue in zip(found, issues, strict=True)
            ],
        ) from None
    lanes, unread = _lanes(plan, folder)
    found_among = [(problem.path, problem.message) for problem in problems([_lane(lane) for lane in lanes])]
    among = [Problem(path, what, name, parsed.line_of(_place(path))) for path, what in (*unread, *found_among)]
    if among:
        raise _wrong(name, among)
    return Plan(name, plan, lanes, parsed)


def _text(path: str, name: str) -> str:
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise CommandError(f"can't read {name}: {error.strerror}", UNUSABLE) from None
    if len(data) > BYTES_MAX:
        raise CommandError(f"{name} is larger than {BYTES_MAX // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong(name, [Problem("", f"is not UTF-8 (at byte {error.start})", name, line)]) from None


def _in_yaml(message: str, value: Any) -> str:
    """A message in terms of the file: what was meant as text may be a number or a yes to YAML."""
    if message == "must be a string" and isinstance(value, bool | int | float):
        return "must be a string: put it in quotes"
    return "is empty: a plan has a title and lanes" if message == "must be an object" and value is None else message


def _lanes(plan: PlanFile, folder: Path) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The lanes as the API takes them, and the prompts that couldn't be read."""
    lanes, unread = [], []
    for number, lane in enumerate(plan.lanes):
        body = lane.model_dump(mode="json", exclude_unset=True, exclude={"promptFile"})
        if lane.promptFile is not None:
            try:
                body["prompt"] = _prompt(folder / lane.promptFile)
            except (OSError, ValueError) as error:
                what = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
                unread.append((f"lanes.{number}.promptFile", f"can't be used: {what}"))
        lanes.append(body)
    return lanes, unread


def _prompt(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(4 * bounds.PROMPT_MAX + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (at byte {error.start})") from None
    if len(text) > bounds.PROMPT_MAX:
        raise ValueError(f"it is longer than {bounds.PROMPT_MAX} characters")
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    return text


def _lane(body: dict[str, Any]) -> Lane:
    return Lane(body["laneKey"], body["title"], body["role"], after=body.get("after", ()))


def _place(path: str) -> Place:
    return tuple(int(step) if step.isdigit() else step for step in path.split(".")) if path else ()


def _wrong(name: str, found: Sequence[Problem]) -> CommandError:
    ordered = sorted(found, key=lambda problem: problem.line or 0)
    if len(ordered) == 1:
        return CommandError(f"{ordered[0]}", issues=ordered)
    return CommandError(f"{name} has {len(ordered)} problems; nothing was sent", issues=ordered)
