"""What was measured, as an SVG that reads on a light page and on a dark one."""

from __future__ import annotations

from typing import Any, Final
from xml.sax.saxutils import escape

from bench.bodies import Case
from bench.peers.tables import HEADINGS, OURS, Row, number, rows

WIDTH: Final = 760
LABEL_WIDTH: Final = 200
VALUE_WIDTH: Final = 200
"""What the longest bar leaves free at its right for its figure."""
BAR_HEIGHT: Final = 22
STEP: Final = 34
TITLE_HEIGHT: Final = 40
MARGIN: Final = 20
BAR_LEAST: Final = 1.5
NOT_SHOWN: Final = "the floor"
"""What writes nothing would only make the other bars shorter."""

STYLE: Final = """
  .page { fill: #ffffff; stroke: #d5dae1 }
  text { font: 14px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; fill: #1c2430 }
  .title { font-weight: 600 }
  .value { font-variant-numeric: tabular-nums }
  .quiet { fill: #5a6675 }
  .peer { fill: #8a97a8 }
  .ours { fill: #0b7a66 }
  .axis { stroke: #c3cad4 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #12161c; stroke: #2d3540 }
    text { fill: #e8ecf1 }
    .quiet { fill: #a3aebc }
    .peer { fill: #77859a }
    .ours { fill: #2fbfa3 }
    .axis { stroke: #3a4350 }
  }
"""


def chart(found: dict[str, Any]) -> str:
    """Bars of the rates from zero, in one scale for each case, with the figures beside them."""
    parts: list[str] = []
    top = MARGIN
    for case, title in HEADINGS.items():
        shown = [row for row in rows(found, case) if row.name != NOT_SHOWN]
        if not shown:
            continue
        parts.append(_panel(case, title, shown, top))
        top += TITLE_HEIGHT + STEP * len(shown) + MARGIN
    pace, machine = found["pace"], found["machine"]
    foot = (
        f"{pace['connections']} connections, one server process each, one PostgreSQL, {machine['cores']} cores; "
        f"medians of {pace['rounds']} rounds; {found['measured']}"
    )
    height = top + MARGIN + 8
    spoken = "; ".join(
        f"{HEADINGS[case]}: " + ", ".join(f"{row.name} {number(row.rate)}/s" for row in rows(found, case))
        for case in HEADINGS
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">\n'
        f'<title id="title">Calls a second, each answered when written</title>\n'
        f'<desc id="desc">{escape(spoken)}</desc>\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        + "".join(parts)
        + f'<text class="quiet" x="{MARGIN}" y="{height - MARGIN}">{escape(foot)}</text>\n</svg>\n'
    )


def _panel(case: Case, title: str, shown: list[Row], top: float) -> str:
    most = max(row.rate for row in shown)
    longest = WIDTH - LABEL_WIDTH - VALUE_WIDTH - MARGIN
    left = LABEL_WIDTH
    lines = [f'<text class="title" x="{MARGIN}" y="{top + 18}">{escape(title)}: calls a second</text>\n']
    for place, row in enumerate(shown):
        y = top + TITLE_HEIGHT + STEP * place
        width = max(BAR_LEAST, longest * row.rate / most)
        middle = y + BAR_HEIGHT / 2 + 5
        figure = f"{number(row.rate)}/s"
        beside = "" if row.name == OURS else f' <tspan class="quiet">Heartlane: {number(row.times)} ×</tspan>'
        lines.append(
            f'<text x="{left - 12}" y="{middle}" text-anchor="end">{escape(f"{row.name} {row.version}")}</text>\n'
            f'<rect class="{"ours" if row.name == OURS else "peer"}" x="{left}" y="{y}" width="{width:.1f}" '
            f'height="{BAR_HEIGHT}"/>\n'
            f'<text class="value" x="{left + width + 8:.1f}" y="{middle}">{figure}{beside}</text>\n'
        )
    bottom = top + TITLE_HEIGHT + STEP * len(shown) - (STEP - BAR_HEIGHT) / 2
    lines.append(f'<line class="axis" x1="{left}" y1="{top + TITLE_HEIGHT - 6}" x2="{left}" y2="{bottom}"/>\n')
    return "".join(lines)
