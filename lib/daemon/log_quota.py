"""How often the same thing is said."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_MOST = 50
_PERIOD_S = 10.0


@dataclass(slots=True)
class _Period:
    ends: float
    said: int = 0
    left_out: int = 0


class LogQuota(Generic[K]):
    """Lets each thing be said so often in a period, and counts what is left out.

    What anybody can cause must not fill a disk, nor take the time of those who are served.

    Attributes:
        clock: monotonic seconds.
    """

    def __init__(
        self, *, most: int = _MOST, period_s: float = _PERIOD_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._period_s = period_s
        self._clock = clock
        self._periods: dict[K, _Period] = {}
        self._left_out: Counter[K] = Counter()
        self._tidied_at = clock()

    def admit(self, key: K) -> bool:
        """May it be said once more?"""
        now = self._clock()
        period = self._periods.get(key)
        if period is None or now >= period.ends:
            self._end(key)
            period = self._periods[key] = _Period(ends=now + self._period_s)
        if period.said < self._most:
            period.said += 1
            return True
        period.left_out += 1
        return False

    def left_out(self, *, is_last: bool = False) -> Mapping[K, int]:
        """What was left out in periods that are over, or in all, and was not told before."""
        now = self._clock()
        if is_last or now >= self._tidied_at + self._period_s:
            self._tidied_at = now
            for key in [key for key, period in self._periods.items() if is_last or now >= period.ends]:
                self._end(key)
        if not self._left_out:
            return {}
        told, self._left_out = self._left_out, Counter()
        return told

    def _end(self, key: K) -> None:
        period = self._periods.pop(key, None)
        if period is not None and period.left_out:
            self._left_out[key] += period.left_out
