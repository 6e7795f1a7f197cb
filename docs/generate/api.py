"""Every route, from the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from docs.generate.markdown import code, table
from heartlane.server.app import api_routes
from heartlane.server.limits import ROUTES
from heartlane.server.openapi import RATE_LIMITS, TAGS, build_document

HEAD: Final = ("route", "", "scope", "limit", "answers")


def reference() -> str:
    """A table for each group of routes."""
    operations = [
        (method.upper(), path, operation)
        for path, item in build_document(api_routes())["paths"].items()
        for method, operation in item.items()
    ]
    parts = []
    for tag, about in TAGS:
        rows = [_row(method, path, each) for method, path, each in operations if each["tags"] == [tag]]
        parts.append(f"## {tag}\n\n{about}\n\n{table(HEAD, rows)}")
    return "\n\n".join(parts)


def _row(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    scope = operation.get("x-scope")
    name = RATE_LIMITS.get(operation["operationId"], "default")
    return [
        code(f"{method} {path}"),
        operation["summary"],
        scope or "no token",
        "none" if scope is None else f"{code(name)}, {ROUTES[name][0]:,}/min",
        " ".join(sorted(operation["responses"])),
    ]
