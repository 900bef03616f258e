"""What happened, for the report: only written by the model, never read by it."""

from __future__ import annotations

from services.devstack.simulation.clock import Clock
from services.devstack.simulation.traces import Span


class Chronicle:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stop_ordered_at_s = 0.0
        self._working_since_s: float | None = None
        self._work: list[Span] = []
        self.killed_at_s: list[float] = []
        self.stops_s: dict[str, list[float]] = {}

    @property
    def work(self) -> tuple[Span, ...]:
        """When the slot was busy; what is in work lasts until now."""
        if self._working_since_s is None:
            return tuple(self._work)
        return (*self._work, Span(self._working_since_s, self._clock.now_s))

    def work_began(self) -> None:
        self._working_since_s = self._clock.now_s

    def work_ended(self) -> None:
        self._work = list(self.work)
        self._working_since_s = None

    def stop_ordered(self) -> None:
        self._stop_ordered_at_s = self._clock.now_s

    def job_killed(self) -> None:
        """The stop that was ordered last ended a job in mid-work."""
        self.killed_at_s.append(self._stop_ordered_at_s)

    def stopped_by(self, rule: str) -> None:
        self.stops_s.setdefault(rule, []).append(self._clock.now_s)
