"""What was measured, as Markdown: the rates, how they were taken, and what isn't comparable."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.bodies import Case

OURS: Final = "Heartlane"
GOAL_TIMES: Final = 60
"""What Heartlane's rate should be of Airflow's and Prefect's for the like call."""
HEADINGS: Final[dict[Case, str]] = {"heartbeat": "A heartbeat", "events": "A report with 10 log lines or events"}


@dataclass(frozen=True)
class Row:
    """One contestant's rounds of one case: medians, and the least and the most of its rates. Latencies in ms."""

    name: str
    version: str
    call: str
    rate: float
    least: float
    most: float
    p50_ms: float
    p99_ms: float
    written: int
    times: float
    """Heartlane's rate to this one's: the median of what each round came to."""


def rows(found: dict[str, Any], case: Case) -> list[Row]:
    """All that were measured in a case, in the order in which they took turns."""
    ours = next((one for one in found["contestants"] if one["name"] == OURS), None)
    if ours is None or case not in ours["rounds"]:
        return []
    measured = [one for one in found["contestants"] if case in one["rounds"]]
    return [_row(one, case, [result["rate"] for result in ours["rounds"][case]]) for one in measured]


def _row(one: dict[str, Any], case: Case, ours: Sequence[float]) -> Row:
    results = one["rounds"][case]
    rates = [result["rate"] for result in results]

    def median(name: str) -> float:
        return float(statistics.median(result[name] for result in results))

    return Row(
        name=one["name"],
        version=one["version"],
        call=one["calls"][case],
        rate=median("rate"),
        least=min(rates),
        most=max(rates),
        p50_ms=median("p50_ms"),
        p99_ms=median("p99_ms"),
        written=one["written"].get(case, {}).get("found", 0),
        times=float(statistics.median(mine / its for mine, its in zip(ours, rates, strict=True))),
    )


def number(value: float) -> str:
    """A figure with as many digits as say something.

    >>> [number(value) for value in (12345.6, 215.4, 64.23, 7.81, 0.26)]
    ['12,346', '215', '64', '7.8', '0.26']
    """
    if value >= 20:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def markdown_table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a `|` within a cell is kept from ending it.

    >>> print(markdown_table(["a", "b"], [["1", "x|y"]]), end="")
    | a | b |
    |---|---|
    | 1 | x\\\\|y |
    """
    written = [headings, ["---"] * len(headings), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "".join(
        ("|" + "|".join(row) + "|" if row[0] == "---" else "| " + " | ".join(row) + " |") + "\n" for row in written
    )


def tables(found: dict[str, Any]) -> str:
    """Everything for the reader of the figures."""
    return (
        "\n".join([taken(found), *(_case(found, case) for case in HEADINGS), _settings(found), _absent(found)]).rstrip()
        + "\n"
    )


def taken(found: dict[str, Any]) -> str:
    """When, where and how it was measured, a paragraph."""
    machine, pace, database = found["machine"], found["pace"], found["postgresql"]
    loads = [r["machine_load"] for one in found["contestants"] for rs in one["rounds"].values() for r in rs]
    busy = f"{min(loads):.1f} to {max(loads):.1f} meanwhile" if loads else "nothing measured"
    return (
        f"Measured on {found['measured']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, Python {machine['python']}; PostgreSQL {database['server_version']}, shared by "
        f"all, with a database for each (fsync {database['fsync']}, synchronous_commit "
        f"{database['synchronous_commit']}, shared_buffers {database['shared_buffers']}); {pace['connections']} "
        f"connections, one server process each, {pace['rounds']} rounds of {pace['seconds']:g} s in turns; load average"
        f" {found['load_before']:.1f} before it began, {busy}.\n"
    )


def _case(found: dict[str, Any], case: Case) -> str:
    headings = ["", "call", "a second (median)", "rounds", "p50, p99", "Heartlane's rate to it", "found written after"]
    lines = [
        [
            f"{row.name} {row.version}".strip(),
            row.call,
            number(row.rate),
            f"{number(row.least)} to {number(row.most)}",
            f"{number(row.p50_ms)} ms, {number(row.p99_ms)} ms",
            "" if row.name == OURS else f"{number(row.times)} ×",
            f"{row.written:,}" if row.written else "",
        ]
        for row in rows(found, case)
    ]
    return f"### {HEADINGS[case]}\n\n{markdown_table(headings, lines)}"


def _settings(found: dict[str, Any]) -> str:
    parts = []
    for one in found["contestants"]:
        if not one["rounds"]:
            continue
        lines = [
            *(f"- {line}" for line in one["settings"]),
            *(f"- not comparable: {line}" for line in one["not_comparable"]),
        ]
        parts.append("\n".join([f"**{one['name']} {one['version']}**".replace(" **", "**"), "", *lines, ""]))
    return "### How each was set up, and what isn't comparable\n\n" + "\n".join(parts)


def _absent(found: dict[str, Any]) -> str:
    gone = [f"- {one['name']} {one['version']}: it {one['absent']}" for one in found["contestants"] if one["absent"]]
    return "### Left out\n\n" + "\n".join(gone) + "\n" if gone else ""
