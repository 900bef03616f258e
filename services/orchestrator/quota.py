"""How many tasks without an end a client may have: a mistake of one must not keep all others waiting for days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lib.gputask.record import Status, TaskRecord
from services.orchestrator.errors import TooManyUnfinished

# As long as a round of the walk takes to see that some have ended.
_RETRY_AFTER_S = 60


class Quota:
    """Knows what the walk along the live tasks has seen, and what was accepted here since: no read of its own.

    A soft bound. Each replica counts what it accepts itself, and learns of the others' by the walk.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._walked: Counter[str] = Counter()
        self._accepted_meanwhile: Counter[str] = Counter()
        self._walk_began_at = 0.0

    def is_used_up(self, client_id: str) -> bool:
        counts = (self._waiting, self._held, self._accepted)
        return sum(count[client_id] for count in counts) >= self._most

    def refuse(self) -> TooManyUnfinished:
        """What to answer a client whose quota is used up."""
        return TooManyUnfinished(self._most, _RETRY_AFTER_S)

    def note_accepted(self, client_id: str) -> None:
        self._accepted[client_id] += 1
        self._accepted_meanwhile[client_id] += 1

    def begin_walk(self, now: float) -> None:
        """The walk begins at the oldest task."""
        self._walked.clear()
        self._accepted_meanwhile = Counter()
        self._walk_began_at = now

    def see(self, tasks: Iterable[TaskRecord]) -> None:
        """Tasks that the walk comes by; the held ones it meets in each of its rounds."""
        seen = list(tasks)
        self._held = Counter(task.client_id for task in seen if task.status is Status.PROCESSING)
        # What was created since is counted where it was accepted.
        waiting = (task for task in seen if task.status is Status.PENDING and task.created_at < self._walk_began_at)
        self._walked.update(task.client_id for task in waiting)

    def end_walk(self) -> None:
        """The walk has come by all tasks."""
        self._waiting, self._accepted = Counter(self._walked), self._accepted_meanwhile
        self._accepted_meanwhile = Counter(self._accepted)
