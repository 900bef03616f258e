"""The findings for people, a line each, or for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.text import Text

from services.doctor.finding import Finding, Mark

_STYLES: Final = {
    Mark.OK: "green",
    Mark.WARNING: "yellow",
    Mark.BROKEN: "bold red",
    Mark.UNSEEN: "magenta",
}
_MARK_WIDTH = max(map(len, Mark))


def print_report(findings: Sequence[Finding], console: Console) -> None:
    """One line per finding and one on all of them; colours only on a terminal, and no line is broken."""
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        line = Text()
        line.append(f"{finding.mark:{_MARK_WIDTH}}", style=_STYLES[finding.mark])
        line.append(f"  {finding.check:{width}}  {finding.text}")
        if finding.fix:
            line.append("  fix: ", style="bold")
            line.append(finding.fix)
        console.print(line, soft_wrap=True)
    console.print(summarize(findings), soft_wrap=True, highlight=False)


def summarize(findings: Sequence[Finding]) -> str:
    """How many of each kind."""
    counts = Counter(finding.mark for finding in findings)
    return ", ".join(f"{counts[mark]} {mark}" for mark in Mark if counts[mark] or mark is Mark.OK)


def render_json(findings: Sequence[Finding]) -> str:
    """``{"ok": bool, "findings": [{"mark", "check", "text", "fix"}]}``."""
    document = {"ok": is_well(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(document, ensure_ascii=False, indent=2)


def is_well(findings: Sequence[Finding]) -> bool:
    """Nothing is broken, and nothing was left unseen that might be."""
    return not any(finding.mark in (Mark.BROKEN, Mark.UNSEEN) for finding in findings)
