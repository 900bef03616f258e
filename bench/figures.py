"""Numbers that were measured, the medians of several rounds, and how they compare with what is to be reached."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One window of load on one subject.

    Attributes:
        latencies_s: of every request that ended in the window.
        statuses: HTTP status to how often; 0 stands for no answer at all.
        cpu_s: what the subject used meanwhile; None where that is nobody's.
    """

    latencies_s: Sequence[float]
    elapsed_s: float
    statuses: Mapping[int, int] = field(default_factory=dict)
    cpu_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The medians of several rounds, each number by itself.

    Attributes:
        cpu_us: of the subject, per request; NaN where it was not measured.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: float
    statuses: Mapping[int, int]

    @property
    def count(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """Requests without the answer that was asked for."""
        return sum(times for status, times in self.statuses.items() if not 200 <= status < 300)


def summarize(samples: Sequence[Sample]) -> Figures:
    """Medians over the rounds; the statuses are added up."""
    statuses: Counter[int] = Counter()
    for sample in samples:
        statuses.update(sample.statuses)
    cpu = [sample.cpu_s / len(sample.latencies_s) * 1e6 for sample in samples if sample.cpu_s is not None]
    return Figures(
        rate=median(len(sample.latencies_s) / sample.elapsed_s for sample in samples),
        p50_ms=median(percentile(sample.latencies_s, 0.50) for sample in samples) * 1000,
        p99_ms=median(percentile(sample.latencies_s, 0.99) for sample in samples) * 1000,
        max_ms=median(max(sample.latencies_s) for sample in samples) * 1000,
        cpu_us=median(cpu) if cpu else math.nan,
        statuses=dict(sorted(statuses.items())),
    )


class Direction(Enum):
    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Target:
    """What a number is to reach."""

    direction: Direction
    bound: float

    def is_reached_by(self, measured: float) -> bool:
        return measured >= self.bound if self.direction is Direction.AT_LEAST else measured <= self.bound


def at_least(bound: float) -> Target:
    return Target(Direction.AT_LEAST, bound)


def at_most(bound: float) -> Target:
    return Target(Direction.AT_MOST, bound)


@dataclass(frozen=True, slots=True)
class Finding:
    """One number with its unit (`x` for a ratio) and, where there is one, its target."""

    what: str
    measured: float
    unit: str
    target: Target | None = None
