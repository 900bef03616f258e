"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # worth a word: it costs, or takes away a safety net
    BROKEN = "broken"  # a task can be lost or stranded, or the GPU can run for nothing
    UNSEEN = "unseen"  # could not look


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `check` names what was looked at, and stays the same whatever was found."""

    mark: Mark
    check: str
    text: str
    fix: str = ""


def fine(check: str, text: str) -> Finding:
    return Finding(Mark.OK, check, text)


def warning(check: str, text: str, *, fix: str) -> Finding:
    return Finding(Mark.WARNING, check, text, fix)


def broken(check: str, text: str, *, fix: str) -> Finding:
    return Finding(Mark.BROKEN, check, text, fix)


def span(seconds: float) -> str:
    """A length of time as people say it."""
    whole_s = max(round(seconds), 0)
    for unit_s, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if whole_s >= 2 * unit_s:
            return f"{whole_s // unit_s} {name}"
    return f"{whole_s} s"
