"""How the demo ended: a verdict per scene, the table, the bill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.devstack.billing import GPU_USD_PER_HOUR, cost_usd
from services.devstack.demo.client import Ticket


def complaint(ticket: Ticket, tickets: Sequence[Ticket]) -> str | None:
    """What is not as the script says; None if all is."""
    scene = ticket.scene
    if ticket.answer != scene.answer:
        return f"answered {ticket.answer} instead of {scene.answer}"
    if scene.ends is not None and ticket.status != scene.ends:
        return f"is {ticket.status} instead of {scene.ends}"
    if scene.says and scene.says not in error_text(ticket):
        return f"its error does not speak of {scene.says!r}"
    if scene.same_job_as is not None:
        first = next(other for other in tickets if other.scene.title == scene.same_job_as)
        if ticket.job_id != first.job_id:
            return f"got another job than {first.scene.title!r}"
    return None


def error_text(ticket: Ticket) -> str:
    """Why there is no result, in words."""
    if ticket.job is not None:
        return str(ticket.job["error"] or "")
    if isinstance(ticket.detail, list):
        return "; ".join(f"{part['loc'][-1]}: {part['msg']}" for part in ticket.detail)
    return str(ticket.detail)


def print_report(console: Console, tickets: Sequence[Ticket], pictures: dict[str, Path], complaints: list[str]) -> None:
    """The results."""
    table = Table(title="Results", title_justify="left")
    for column in ("", "request", "answered", "job", "took", "outcome"):
        table.add_column(column, overflow="fold")
    for ticket in tickets:
        mark = "[red]✗[/]" if complaint(ticket, tickets) else "[green]✓[/]"
        outcome = str(pictures.get(ticket.job_id, "")) or error_text(ticket)
        table.add_row(
            mark,
            ticket.scene.title,
            f"{ticket.answer} in {ticket.answered_ms:.0f} ms",
            ticket.job_id[:13],
            f"{ticket.elapsed_s:.1f} s",
            outcome,
        )
    console.print(table)
    for line in complaints:
        console.print(f"[red]✗[/] {line}", highlight=False)


def print_bill(console: Console, *, gpu_s: float, scale: float, idle_s: float) -> None:
    """What the GPU did and would have cost. The idle tail is the part that the demo's clock has shortened."""
    real_s = max(gpu_s - idle_s, 0) + idle_s * scale
    table = Table(title="The bill", title_justify="left", show_header=False)
    table.add_row(
        "GPU on in this demo", f"{gpu_s:.0f} s, of which {idle_s:.0f} s idle window (30 min, {scale:g} x faster)"
    )
    table.add_row("the same in AWS", f"{real_s / 60:.0f} min, ${cost_usd(real_s):.2f} at ${GPU_USD_PER_HOUR}/h")
    table.add_row("a GPU that never stops", f"${cost_usd(86_400):.2f} a day")
    table.add_row("now, asleep", "$0.00/h")
    console.print(table)
