"""The virtual clock: a heap of what happens when. Nothing waits; a day lasts as long as its events take to handle."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

Action = Callable[[], None]


@dataclass(slots=True)
class Timer:
    """Something that will happen unless it is cancelled."""

    action: Action
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """Seconds since the midnight at which the day begins. What is due at the same moment happens in order of asking."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Timer]] = []
        self._asked = 0

    def at(self, at_s: float, action: Action) -> Timer:
        """Do it then; at once if that has passed."""
        timer = Timer(action)
        self._asked += 1
        heapq.heappush(self._due, (max(at_s, self.now_s), self._asked, timer))
        return timer

    def after(self, delay_s: float, action: Action) -> Timer:
        return self.at(self.now_s + delay_s, action)

    def every(self, interval_s: float, action: Action, *, first_s: float = 0.0) -> None:
        """Do it at `first_s` and from then on, for as long as the clock runs."""

        def tick() -> None:
            self.after(interval_s, tick)
            action()

        self.at(first_s, tick)

    def run(self, until_s: float, *, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until `until_s`, or until it `is_over` (asked before each event)."""
        while self._due and self._due[0][0] <= until_s and not is_over():
            self.now_s, _, timer = heapq.heappop(self._due)
            if not timer.is_cancelled:
                timer.action()
