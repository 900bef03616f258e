"""How long a script may measure."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Budget:
    """Start-up and draining come on top.

    Attributes:
        seconds: what all windows of a script take together, about.
        rounds: how often everything is measured; medians are reported.
    """

    seconds: float
    rounds: int

    def window_s(self, windows_per_round: float) -> float:
        """The length of one window."""
        return self.seconds / self.rounds / windows_per_round

    def shortened(self, full: float, *, at_least: float) -> float:
        """`full` for a script that has its usual time, in proportion less for one that has less."""
        return max(full * min(self.seconds / DEFAULT_SECONDS, 1), at_least)
