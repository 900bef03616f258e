"""Days worth simulating: what is asked of the system, and what goes wrong. The same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from services.devstack.simulation.numbers import DAY_S, HOUR_S, MINUTE_S

FOR_EVER = math.inf


@dataclass(frozen=True, slots=True)
class Span:
    """From one second of the day to another."""

    since_s: float
    until_s: float

    def covers(self, at_s: float) -> bool:
        return self.since_s <= at_s < self.until_s


NEVER = Span(0.0, 0.0)

# CloudWatch looks at the full minute. It would see every request that came at that very second, as it sees no real one.
_PAST_MINUTE_S = 7.0


@dataclass(frozen=True, slots=True)
class Job:
    """One request.

    Attributes:
        at_s: when it arrives.
        run_s: how long the Unified API takes over it; `FOR_EVER`: it hangs, and answers nothing until it is restarted.
        client: who asks.
        outlives_deadline: a worker that is wrong itself: it renews the lease, and its deadline never comes.
    """

    at_s: float
    run_s: float
    outlives_deadline: bool = False
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One day.

    Attributes:
        manual_starts_s: somebody starts the instance by hand.
        alarm_lost: the alarm's calls of the Lambda come to nothing, retries included.
        no_capacity: EC2 refuses starts with InsufficientInstanceCapacity.
        adapter_broken: the adapter does not come up.
    """

    name: str
    jobs: tuple[Job, ...] = ()
    manual_starts_s: tuple[float, ...] = ()
    alarm_lost: Span = NEVER
    no_capacity: Span = NEVER
    adapter_broken: Span = NEVER

    @property
    def troubles(self) -> tuple[tuple[str, Span], ...]:
        """What goes wrong from outside, named, for people."""
        spans = (
            ("alarm's calls fail", self.alarm_lost),
            ("no capacity", self.no_capacity),
            ("adapter broken", self.adapter_broken),
        )
        return tuple((name, span) for name, span in spans if span is not NEVER)


def all_traces(seed: int) -> tuple[Trace, ...]:
    """The days of the report, in its order."""
    return (
        Trace(name="steady short jobs", jobs=_steady(_dice(seed, "steady"))),
        Trace(name="bursts", jobs=_bursts(_dice(seed, "bursts"))),
        Trace(
            name="one long job, one too long",
            jobs=(_job(8, 0, 1), _job(10, 0, 1), _job(10, 20, 24), _job(15, 0, 40)),
        ),
        Trace(name="nightly batch", jobs=_batch(_dice(seed, "batch"))),
        Trace(name="a job every 29 min", jobs=_every(29 * MINUTE_S)),
        Trace(name="a job every 31 min", jobs=_every(31 * MINUTE_S)),
        # The stops of both policies that stop, and a job within the minute that each takes.
        Trace(name="a job while it stops", jobs=(_job(5, 0, 1), _job(5, 33.5, 1), _job(5, 37, 1))),
        Trace(
            name="a stuck job",
            jobs=(_job(10, 0, 2), Job(_clock(10, 5), FOR_EVER), _job(10, 10, 2), _job(10, 25, 2)),
        ),
        Trace(
            name="a stuck job and a wrong worker",
            jobs=(_job(10, 0, 2), Job(_clock(10, 5), FOR_EVER, outlives_deadline=True), _job(14, 0, 2)),
        ),
        Trace(name="a manual start at night", manual_starts_s=(_clock(4, 0),), jobs=(_job(9, 0, 2), _job(9, 30, 2))),
        Trace(
            name="a lost alarm",
            jobs=(_job(9, 0, 2), _job(9, 10, 2)),
            alarm_lost=Span(_clock(9, 0), _clock(11, 0)),
        ),
        Trace(
            name="no capacity for 20 min",
            jobs=(_job(9, 0, 2), _job(9, 5, 2), _job(9, 15, 2)),
            no_capacity=Span(_clock(9, 0), _clock(9, 20)),
        ),
        Trace(
            name="a broken adapter, repaired at 15:00",
            jobs=(_job(9, 0, 2), _job(9, 20, 2), _job(11, 0, 2)),
            # Whoever has repaired it starts the instance to see it work.
            manual_starts_s=(_clock(15, 0),),
            adapter_broken=Span(_clock(8, 0), _clock(15, 0)),
        ),
    )


def _dice(seed: int, name: str) -> Random:
    """Of its own for each trace, so that one more throw in one does not change the others."""
    return Random(f"{seed} {name}")


def _clock(hour: int, minute: float) -> float:
    return hour * HOUR_S + minute * MINUTE_S + _PAST_MINUTE_S


def _job(hour: int, minute: float, run_min: float) -> Job:
    return Job(_clock(hour, minute), run_min * MINUTE_S)


def _steady(dice: Random) -> tuple[Job, ...]:
    """A working day: about one job in six minutes, one to three minutes each."""

    def arrivals() -> Iterator[Job]:
        at_s = _clock(9, 0)
        while at_s < _clock(17, 0):
            yield Job(round(at_s, 1), round(dice.uniform(60, 180), 1))
            at_s += dice.expovariate(1 / (6 * MINUTE_S))

    return tuple(arrivals())


def _bursts(dice: Random) -> tuple[Job, ...]:
    """Three campaigns: some dozens of jobs within two minutes."""
    return tuple(
        Job(round(at_s + dice.uniform(0, 120), 1), round(dice.uniform(40, 90), 1))
        for at_s in (_clock(9, 30), _clock(13, 0), _clock(17, 15))
        for _ in range(dice.randint(15, 40))
    )


def _batch(dice: Random) -> tuple[Job, ...]:
    """A script that submits one job per second."""
    return tuple(Job(_clock(2, 0) + number, round(dice.uniform(60, 120), 1)) for number in range(150))


def _every(interval_s: float) -> tuple[Job, ...]:
    """From 06:00 to 22:00, eight minutes each."""
    start_s, count = _clock(6, 0), int(16 * HOUR_S / interval_s)
    assert start_s + count * interval_s < DAY_S
    return tuple(Job(start_s + number * interval_s, 8 * MINUTE_S) for number in range(count))
