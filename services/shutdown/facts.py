"""What is known when the Lambda decides. Pure data; every time is in epoch seconds.

Any part may be missing or nonsense: the records were written by other processes on other clocks. Nothing here raises,
for a record that made the Lambda fail each minute would keep the instance on for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass

NEVER = 0.0
"""Stands for a moment that is not known; so long ago that it keeps nothing on."""

CLOCK_SKEW_S = 300.0
"""A moment further ahead of us than this is no evidence. Without the limit one timestamp in milliseconds, or one GPU
box with a wrong clock, would count as activity for years and keep the instance on."""


MOST_HOLDS = 1000
"""In a row; of 4 h each they last for half a year. A count beyond is nonsense and counts as none."""

LONGEST_LEASE_S = 86_400.0
"""No lease ends later than this from now: SQS hides a message for 12 h at the most."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task that is not finished: ``pending`` or ``processing``."""

    task_id: str
    status: str
    created_at: float
    claimed_at: float | None = None
    lease_until: float | None = None
    attempt: int = 0

    def is_waiting(self, now: float) -> bool:
        """Whether a worker may claim it now; the same condition as the adapter's claim.

        A lease that is missing, as in records of other programs, or beyond any lease of ours has run out.
        """
        if self.status == "pending" or self.lease_until is None:
            return True
        return not now < self.lease_until <= now + LONGEST_LEASE_S

    def waiting_since(self, now: float) -> float:
        """When it became claimable; has a meaning only for one that waits."""
        if self.status == "pending" or self.lease_until is None or self.lease_until > now:
            return self.created_at
        return self.lease_until


@dataclass(frozen=True, slots=True)
class Worker:
    """What the adapter says of itself."""

    beat_at: float | None = None
    upstream_ok_at: float | None = None
    last_claim_at: float | None = None
    last_service_at: float | None = None

    def vouched_at(self, now: float) -> float | None:
        """Last moment at which it beat and its upstream was healthy; None if that cannot be told."""
        if self.beat_at is None or self.upstream_ok_at is None or self.is_ahead(now):
            return None
        return min(self.beat_at, self.upstream_ok_at)

    def is_ahead(self, now: float) -> bool:
        """Whether its clock is so far ahead of ours that its beats prove nothing."""
        return max(self.beat_at or NEVER, self.upstream_ok_at or NEVER) > now + CLOCK_SKEW_S


@dataclass(frozen=True, slots=True)
class Hold:
    """No start before ``until``. It is the ``count``-th in a row, with no sign of a healthy worker between them."""

    until: float
    count: int
    put_at: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the decision looks at. While the instance does not run, only ``now`` and ``state`` are looked up, and
    while it stops, since when."""

    now: float
    state: str
    stopping_since: float | None = None
    """Since when it stops, or since its stop was last forced."""
    launched_at: float | None = None
    tasks: tuple[Task, ...] = ()
    """Not finished: of each status the oldest and the newest, see ``is_partial``."""
    is_partial: bool = False
    """There are more of them than were looked at."""
    last_created_at: float | None = None
    """Of finished tasks."""
    last_claimed_at: float | None = None
    """Of finished tasks."""
    visible: int | None = 0
    """Messages visible in the queue: approximate, so it may postpone a stop and never causes one. None: not told."""
    worker: Worker | None = None
    hold: Hold | None = None

    @property
    def waiting(self) -> tuple[Task, ...]:
        """Tasks that a worker could claim now."""
        return tuple(task for task in self.tasks if task.is_waiting(self.now))

    @property
    def leased(self) -> tuple[Task, ...]:
        """Tasks that some worker holds."""
        return tuple(task for task in self.tasks if not task.is_waiting(self.now))

    @property
    def last_launch_at(self) -> float:
        """EC2 tells LaunchTime of every running instance; without one, nothing is excused as still booting."""
        return self._latest([self.launched_at])

    @property
    def last_claim_at(self) -> float:
        """Last claim of any task by any worker."""
        by_worker = self.worker.last_claim_at if self.worker else None
        return self._latest([by_worker, self.last_claimed_at, *(task.claimed_at for task in self.tasks)])

    @property
    def last_activity_at(self) -> float:
        """Last launch, submission or claim. The end of a task is none: rule A counts from new tasks."""
        created = (task.created_at for task in self.tasks)
        return self._latest([self.last_launch_at, self.last_claim_at, self.last_created_at, *created])

    @property
    def unserved_since(self) -> float:
        """Since when nothing was claimed although it could have been; has a meaning only while something waits."""
        oldest_wait = min((task.waiting_since(self.now) for task in self.waiting), default=None)
        return self._latest([self.last_launch_at, self.last_claim_at, oldest_wait])

    @property
    def last_service_at(self) -> float:
        """Last message that a worker deleted because its task had ended."""
        return self._latest([self.worker.last_service_at if self.worker else None])

    def _latest(self, moments: Iterable[float | None]) -> float:
        credible = (moment for moment in moments if moment is not None and moment <= self.now + CLOCK_SKEW_S)
        return max(credible, default=NEVER)
