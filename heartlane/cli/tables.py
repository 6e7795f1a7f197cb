"""Rows as people read them: columns in plain text, wide as what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print the named columns of the rows under headings; `-` where there is nothing."""
    lines = [[name.removesuffix("_id").removesuffix("_at").replace("_", " ") for name in columns]]
    lines += [["-" if row[name] in (None, "") else str(row[name]) for name in columns] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
