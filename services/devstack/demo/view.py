"""The live view: tables that change on a terminal, plain lines of what changed elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.devstack.demo.client import Ticket

_COLOURS = {"completed": "green", "failed": "red", "processing": "yellow", "pending": "cyan", "refused": "magenta"}
_INSTANCE_COLOURS = {"running": "bold yellow", "pending": "cyan", "stopping": "cyan", "stopped": "green"}


@dataclass(frozen=True, slots=True)
class Situation:
    """What the view shows of the system at one moment."""

    instance: str
    waiting: int
    in_flight: int
    dead: int
    gpu_s: float
    note: str = ""


class View:
    """Shows tickets and situation. `update` may be called as often as one likes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._started_at = time.monotonic()
        self._said: dict[str, str] = {}

    def shown(self) -> AbstractContextManager[Any]:
        """For the time of the block the live tables stand on the terminal."""
        return self._live or nullcontext()

    def update(self, tickets: Sequence[Ticket], now: Situation) -> None:
        if self._live is not None:
            self._live.update(_screen(tickets, now))
            return
        self._say("instance", f"GPU instance is {now.instance}{f' ({now.note})' if now.note else ''}")
        self._say("queue", f"queue: {now.waiting} waiting, {now.in_flight} in work, {now.dead} dead")
        for ticket in tickets:
            self._say(ticket.scene.title, f"{ticket.scene.title}: {ticket.stage}")

    def _say(self, subject: str, line: str) -> None:
        if self._said.get(subject) != line:
            self._said[subject] = line
            elapsed_s = time.monotonic() - self._started_at
            self._console.print(f"{elapsed_s:6.1f} s  {line}", highlight=False, markup=False, soft_wrap=True)


def _screen(tickets: Sequence[Ticket], now: Situation) -> RenderableType:
    jobs = Table(expand=True, title="Jobs", title_justify="left")
    for column, justify in (("request", "left"), ("job", "left"), ("status", "left"), ("stage", "left")):
        jobs.add_column(column, justify=justify)  # type: ignore[arg-type]  # rich's Literal
    jobs.add_column("elapsed", justify="right")
    for ticket in tickets:
        status = Text(ticket.status, style=_COLOURS.get(ticket.status, ""))
        jobs.add_row(ticket.scene.title, ticket.job_id[:13], status, ticket.stage, f"{ticket.elapsed_s:.1f} s")
    gpu = Text.assemble(
        "GPU instance: ",
        (now.instance, _INSTANCE_COLOURS.get(now.instance, "")),
        f"   on for {now.gpu_s:.0f} s   queue: {now.waiting} waiting, {now.in_flight} in work, {now.dead} dead   ",
        (now.note, "dim"),
    )
    return Group(jobs, gpu)
