"""When to look again at a job of an upstream that answers while it works."""

from __future__ import annotations

import statistics
from collections import deque

_FINEST_S = 0.05
_REMEMBERED = 5


class Durations:
    """How long the last jobs took, in seconds."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, duration_s: float) -> None:
        """A job has ended."""
        self._recent.append(duration_s)

    @property
    def usual_s(self) -> float | None:
        """None before the first end."""
        return statistics.median_low(self._recent) if self._recent else None


def pause_s(elapsed_s: float, *, usual_s: float | None, ceiling_s: float) -> float:
    """Seconds until the next look: short at first and near the usual end, never longer than `ceiling_s`.

    While jobs take what they usually take, the looks before the end are as many as with a constant pause.
    """
    if usual_s is None:
        wished_s = elapsed_s / 4
    elif elapsed_s < 0.95 * usual_s:
        wished_s = max(0.95 * usual_s - elapsed_s, usual_s / 40)
    else:
        wished_s = max(usual_s / 40, (elapsed_s - usual_s) / 4)
    return min(max(wished_s, _FINEST_S), ceiling_s)


def span(seconds: float) -> str:
    """A duration for people: seconds below two minutes, minutes above."""
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
