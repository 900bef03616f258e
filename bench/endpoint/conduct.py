"""How the endpoint treats its callers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """What happens to each call.

    Attributes:
        latency_s: how long every answer takes.
        error_rate: share of calls that are answered with an error and have no effect.
        is_stalled: nothing is answered at all.
    """

    latency_s: float = 0.0
    error_rate: float = 0.0
    is_stalled: bool = False
