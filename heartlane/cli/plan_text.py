"""Reads YAML and JSON into plain values, and knows the line of each: for files that people write.

YAML is read as far as JSON goes: no dates, no tags, no keys but text, no key twice, nothing that refers to itself. JSON
is read as JSON, since not every JSON text is YAML.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Final, NamedTuple

import yaml

NODES_MAX: Final = 100_000
"""Values of one file, those of repeated aliases counted each time: a small text can stand for a huge one."""
DEPTH_MAX: Final = 50

_ESCAPES: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)")

Place = tuple[str | int, ...]
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # one of two classes, by what the library was built with
    """The safe loader, but that what looks like a date stays text."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class BadText(ValueError):
    """The text can't be read. `line` counts from 1; None where it isn't known."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


class Parsed(NamedTuple):
    """A value, and the line of each of its parts, by the way to it: `("lanes", 2, "role")`."""

    value: Any
    lines: dict[Place, int]

    def line_of(self, place: Place) -> int | None:
        """The line of a part, or of the nearest thing around it that is there."""
        while place not in self.lines:
            if not place:
                return None
            place = place[:-1]
        return self.lines[place]


def parse(text: str) -> Parsed:
    """The value of a YAML or JSON text. Raises BadText."""
    try:
        if text.lstrip().startswith(("{", "[")):
            return _parse_json(text)
        return _parse_yaml(text)
    except RecursionError:
        raise BadText("is nested too deep", None) from None


def _parse_json(text: str) -> Parsed:
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        # In braces, it may be YAML all the same.
        try:
            return _parse_yaml(text)
        except BadText:
            raise BadText(f"is not valid JSON: {error.msg}", error.lineno) from None
    try:
        # Only for the lines. A tab is blank in JSON, and not everywhere in YAML; and YAML has other escapes.
        return Parsed(value, _parse_yaml(_ESCAPES.sub("x", text).replace("\t", " ")).lines)
    except BadText:
        return Parsed(value, {})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadText(f"has the key {twice!r} twice", None)
    return found


def _parse_yaml(text: str) -> Parsed:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return Parsed(None, {}) if node is None else _Walk(loader).parsed(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "can't be read"
        raise BadText(f"is not valid YAML: {what}", None if mark is None else mark.line + 1) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadText(f"has a character that YAML doesn't allow (number {error.position + 1})", line) from None
    except yaml.YAMLError as error:
        raise BadText(f"is not valid YAML: {error}", None) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Walk:
    """Makes values of YAML's nodes."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._lines: dict[Place, int] = {}
        self._open: set[int] = set()
        self._count = 0

    def parsed(self, node: Any) -> Parsed:
        """The value of the root, and every line."""
        return Parsed(self._value(node, ()), self._lines)

    def _value(self, node: Any, place: Place) -> Any:
        self._lines.setdefault(place, node.start_mark.line + 1)
        self._count += 1
        if self._count > NODES_MAX:
            raise BadText(f"has more than {NODES_MAX:,} values", node.start_mark.line + 1)
        if len(place) > DEPTH_MAX:
            raise BadText("is nested too deep", node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._loader.construct_object(node)
        if id(node) in self._open:
            raise BadText("refers to itself", node.start_mark.line + 1)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, place)
        finally:
            self._open.remove(id(node))

    def _mapping(self, node: Any, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise BadText("has a key that is no text: put it in quotes", line)
            if key in found:
                raise BadText(f"has the key {key!r} twice", line)
            self._lines[*place, key] = line
            found[key] = self._value(value_node, (*place, key))
        return found
