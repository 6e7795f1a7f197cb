"""The text of a document in Atlassian's format (ADF), as Jira's REST API v3 has descriptions: Markdown, near enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from heartlane.sources.read import list_of, object_of, text_of

DEPTH_MAX: Final = 60
_MARKS: Final = {"strong": "**", "em": "*", "code": "`", "strike": "~~"}


def text_of_document(document: Any) -> str:
    """The document as text. What it doesn't know is read for the texts within it.

    >>> text_of_document({"content": [{"type": "paragraph", "content": [{"type": "text", "text": "Hi"}]}]})
    'Hi'
    """
    if isinstance(document, str):
        return document
    return _blocks(list_of(document, "content"), 0).strip()


def _blocks(nodes: Sequence[Any], depth: int) -> str:
    if depth > DEPTH_MAX:
        return ""
    return "\n\n".join(filter(None, (_block(node, depth) for node in nodes)))


def _block(node: Any, depth: int) -> str:
    content = list_of(node, "content")
    kind = text_of(node, "type")
    match kind:
        case "heading":
            level = object_of(node, "attrs").get("level")
            return f"{'#' * (level if isinstance(level, int) and 1 <= level <= 6 else 1)} {_inline(content, depth)}"
        case "codeBlock":
            return f"```{text_of(node, 'attrs', 'language')}\n{_inline(content, depth)}\n```"
        case "bulletList" | "orderedList" | "taskList" | "decisionList":
            return _listed(node, kind, depth)
        case "blockquote":
            return _indented(_blocks(content, depth + 1), "> ", "> ")
        case "rule":
            return "---"
        case "table":
            return "\n".join(_table_row(row, depth) for row in content)
    if any(text_of(child, "type") in ("text", "hardBreak", "mention", "emoji", "inlineCard") for child in content):
        return _inline(content, depth)
    return _blocks(content, depth + 1) if content else _inline([node], depth)


def _listed(node: Any, kind: str, depth: int) -> str:
    lines = []
    for place, item in enumerate(list_of(node, "content"), start=1):
        done = text_of(item, "attrs", "state") == "DONE"
        signs = {"orderedList": f"{place}. ", "taskList": "- [x] " if done else "- [ ] "}
        sign = signs.get(kind, "- ")
        inner = list_of(item, "content")
        text = _inline(inner, depth) if kind in ("taskList", "decisionList") else _blocks(inner, depth + 1)
        lines.append(_indented(text, sign, " " * len(sign)))
    return "\n".join(lines)


def _table_row(row: Any, depth: int) -> str:
    cells = [" ".join(_blocks(list_of(cell, "content"), depth + 1).split()) for cell in list_of(row, "content")]
    return "| " + " | ".join(cells) + " |"


def _indented(text: str, first: str, rest: str) -> str:
    lines = text.split("\n")
    return "\n".join(((first if place == 0 else rest) + line).rstrip() for place, line in enumerate(lines))


def _inline(nodes: Sequence[Any], depth: int) -> str:
    if depth > DEPTH_MAX:
        return ""
    return "".join(_piece(node, depth) for node in nodes)


def _piece(node: Any, depth: int) -> str:
    match text_of(node, "type"):
        case "text":
            return _marked(text_of(node, "text"), list_of(node, "marks"))
        case "hardBreak":
            return "\n"
        case "mention" | "emoji" | "status" | "placeholder":
            return text_of(node, "attrs", "text") or text_of(node, "attrs", "shortName")
        case "inlineCard" | "blockCard" | "embedCard":
            return text_of(node, "attrs", "url")
        case "date":
            return text_of(node, "attrs", "timestamp")
    return _inline(list_of(node, "content"), depth + 1)


def _marked(text: str, marks: Sequence[Any]) -> str:
    for mark in marks:
        kind = text_of(mark, "type")
        if kind == "link":
            href = text_of(mark, "attrs", "href")
            text = href if href == text else f"[{text}]({href})"
        elif kind in _MARKS and text.strip():
            text = f"{_MARKS[kind]}{text}{_MARKS[kind]}"
    return text
