"""The days as tables: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.table import Table

from services.devstack.billing import GPU_USD_PER_HOUR
from services.devstack.simulation.day import Day
from services.devstack.simulation.numbers import HOUR_S, MINUTE_S

_COLUMNS = (
    "policy",
    "completed",
    "failed, and why",
    "killed",
    "stranded",
    "wait p50",
    "wait p95",
    "GPU",
    "idle",
    "longest idle",
    "$",
)
_LONG_IDLE_S = HOUR_S

_LEGEND = f"""\
- **completed**, **failed**: jobs that ended, failed ones with the cause their client reads.
- **killed**: jobs in mid-work when the instance was stopped under them; they had to run again, if they ever did.
  A job that rule B ends is not among them: it fails, and its client reads why.
- **stranded**: jobs that were accepted and never end, looked at until two hours after the day that a job may last.
- **wait**: of completed jobs, from the POST to the result, less the job's own run.
- **GPU**, **idle**, **$**: time in `running` in these 24 h, the part of it without a job in work, and its price at
  ${GPU_USD_PER_HOUR}/h.
"""

_RULES = """\
- **original**: a POST starts the instance if it is `stopped`, `stopping` counts as up, a refused start is not repeated.
  An alarm on visible messages, on its transitions only, stops it. No schedule, no janitor.
- **ours**: the waker, the janitor and the shutdown Lambda of this repository.
- **always on**: never stopped.

Everything else is the same for the three: queue, table, adapter with its leases, deadline and drain, one slot, 150 s
from a start to the first receive, 60 s for a stop, and CloudWatch's rules: one point a minute, two minutes late, none
for a queue untouched for 6 h nor for 15 min after that, six periods of five minutes, actions on transitions.
"""


def terminal_table(days: Sequence[Day]) -> Table:
    """Everything about every day."""
    table = Table(title="Days, simulated", title_justify="left")
    table.add_column("day")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("policy", "failed, and why") else "right")
    for name, cells, is_last in _rows(days):
        marked = [f"[red]{cell}[/]" if at in (3, 4) and cell != "0" else cell for at, cell in enumerate(cells)]
        table.add_row(name, *marked, end_section=is_last)
    return table


def markdown(days: Sequence[Day], *, command: str, plot: str) -> str:
    """The page `docs/simulation.md`.

    Args:
        command: that made it.
        plot: its picture, relative to the page.
    """
    return f"""\
# A day, simulated

Made by `{command}`; a test compares.

![The same days under three policies: what the GPU did, which jobs were killed or stranded, and dollars]({plot})

## What each policy makes of the day

{summary(days)}
{_RULES}
## All numbers

{_details(days)}
{_LEGEND}"""


def summary(days: Sequence[Day]) -> str:
    """One row per day: what went wrong, and the price."""
    policies = [day.policy for day in next(_per_trace(days))]
    lines = [
        f"| day | jobs | {' | '.join(f'{policy} | $' for policy in policies)} |",
        f"| --- | ---: | {' | '.join('--- | ---:' for _ in policies)} |",
    ]
    for group in _per_trace(days):
        cells = " | ".join(f"{_troubles(day)} | {day.usd:.2f}" for day in group)
        lines.append(f"| {group[0].trace.name} | {len(group[0].tasks)} | {cells} |")
    totals = " | ".join(
        f"{_troubles_of([day for day in days if day.policy == policy])} | **{_usd(days, policy):.2f}**"
        for policy in policies
    )
    jobs = sum(len(day.tasks) for day in days if day.policy == policies[0])
    return "\n".join([*lines, f"| **all** | {jobs} | {totals} |", ""])


def _details(days: Sequence[Day]) -> str:
    lines = [f"| day | {' | '.join(_COLUMNS)} |", "| --- | --- | ---: | --- |" + " ---: |" * (len(_COLUMNS) - 3)]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells, _ in _rows(days)]
    return "\n".join([*lines, ""])


def _rows(days: Sequence[Day]) -> Iterator[tuple[str, list[str], bool]]:
    """Name, cells, and whether it is the last of its trace."""
    for group in _per_trace(days):
        for number, day in enumerate(group):
            yield (day.trace.name if number == 0 else "", _cells(day), number == len(group) - 1)


def _per_trace(days: Sequence[Day]) -> Iterator[list[Day]]:
    for _, group in groupby(days, key=lambda day: day.trace.name):
        yield list(group)


def _cells(day: Day) -> list[str]:
    return [
        day.policy,
        str(day.completed),
        ", ".join(f"{count} {code}" for code, count in day.failed.items()),
        str(len(day.killed_at_s)),
        str(len(day.stranded_at_s)),
        span_text(day.wait_s(50)),
        span_text(day.wait_s(95)),
        span_text(day.gpu_s),
        span_text(day.idle_s),
        span_text(day.longest_idle_s),
        f"{day.usd:.2f}",
    ]


def _troubles(day: Day) -> str:
    parts = [_troubles_of([day])]
    if day.policy != "always on" and day.longest_idle_s > _LONG_IDLE_S:
        parts.append(f"on for nothing {span_text(day.longest_idle_s)}")
    return ", ".join(part for part in parts if part) or "fine"


def _troubles_of(days: Sequence[Day]) -> str:
    killed = sum(len(day.killed_at_s) for day in days)
    stranded = sum(len(day.stranded_at_s) for day in days)
    failed = sum(sum(day.failed.values()) for day in days)
    parts = [f"**{killed} killed**" * bool(killed), f"**{stranded} stranded**" * bool(stranded)]
    parts.append(f"{failed} failed by name" * bool(failed))
    return ", ".join(part for part in parts if part)


def _usd(days: Sequence[Day], policy: str) -> float:
    return sum(day.usd for day in days if day.policy == policy)


def span_text(seconds: float | None) -> str:
    """Seconds in the unit that people would use."""
    if seconds is None:
        return "-"
    if round(seconds) < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 10 * MINUTE_S:
        return f"{seconds / MINUTE_S:.1f} min"
    if seconds < 2 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    return f"{seconds / HOUR_S:.1f} h"
