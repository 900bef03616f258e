"""What a script found: for people as tables, findings first, and for machines as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figures, Finding, Target


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers of a shape of their own; text stands as it is."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(slots=True)
class Report:
    """Findings are what counts; the rows behind them are only good on the machine and in the minute they come from."""

    title: str
    findings: list[Finding] = field(default_factory=list)
    rows: list[tuple[str, Figures]] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)

    def find(self, what: str, measured: float, unit: str = "x", target: Target | None = None) -> None:
        self.findings.append(Finding(what, measured, unit, target))

    def add(self, name: str, figures: Figures) -> Figures:
        """Keep a row and give its figures back."""
        self.rows.append((name, figures))
        return figures

    def print_to(self, console: Console) -> None:
        console.print(_findings_table(self.title, self.findings))
        if self.rows:
            console.print(_figures_table(self.rows))
        for grid in self.grids:
            console.print(_grid_table(grid))

    def to_json(self) -> Mapping[str, Any]:
        return {
            "title": self.title,
            "findings": [_finding_json(finding) for finding in self.findings],
            "rows": [_row_json(name, figures) for name, figures in self.rows],
            "grids": [[dict(zip(grid.headings, row, strict=True)) for row in grid.rows] for grid in self.grids],
        }


def _findings_table(title: str, findings: Sequence[Finding]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("to reach", justify="right")
    table.add_column("")
    for finding in findings:
        target = finding.target
        bound = f"{target.direction.value} {_number(target.bound)} {finding.unit}" if target else ""
        table.add_row(finding.what, f"{_number(finding.measured)} {finding.unit}", bound, _verdict(finding))
    return table


def _verdict(finding: Finding) -> str:
    if finding.target is None:
        return ""
    return "[green]reached[/]" if finding.target.is_reached_by(finding.measured) else "[red]not reached[/]"


def _figures_table(rows: Sequence[tuple[str, Figures]]) -> Table:
    table = Table()
    table.add_column("who, what")
    for heading in ("requests/s", "p50 ms", "p99 ms", "max ms", "CPU us/request", "answers"):
        table.add_column(heading, justify="right")
    for name, figures in rows:
        cpu = "" if math.isnan(figures.cpu_us) else f"{figures.cpu_us:,.0f}"
        answers = " ".join(f"{status or 'none'}:{times}" for status, times in figures.statuses.items())
        latencies = (_number(figures.p50_ms), _number(figures.p99_ms), _number(figures.max_ms))
        table.add_row(name, f"{figures.rate:,.1f}", *latencies, cpu, answers)
    return table


def _grid_table(grid: Grid) -> Table:
    table = Table()
    for heading, cell in zip(grid.headings, grid.rows[0], strict=True):
        is_text = isinstance(cell, str) and bool(cell)
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=is_text)
    for row in grid.rows:
        table.add_row(*(cell if isinstance(cell, str) else _number(cell) for cell in row))
    return table


def _number(value: float) -> str:
    """Three digits that mean something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _row_json(name: str, figures: Figures) -> Mapping[str, Any]:
    members = asdict(figures)
    return {"name": name, **members, "cpu_us": None if math.isnan(figures.cpu_us) else figures.cpu_us}


def _finding_json(finding: Finding) -> Mapping[str, Any]:
    target = finding.target
    return {
        "what": finding.what,
        "measured": finding.measured,
        "unit": finding.unit,
        "to_reach": f"{target.direction.value} {target.bound}" if target else None,
        "is_reached": target.is_reached_by(finding.measured) if target else None,
    }
