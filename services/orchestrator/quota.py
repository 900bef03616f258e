"""How many tasks without an end a client may have: a mistake of one must not keep all others waiting for days."""

from __future__ import annotations

from collections import Counter

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
        self._unfinished: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._held: dict[str, str] = {}
        self._accepted_meanwhile: Counter[str] = Counter()
        self._walk_began_at = 0.0

    def is_used_up(self, client_id: str) -> bool:
        return self._unfinished[client_id] + self._accepted[client_id] >= self._most

    def refuse(self) -> TooManyUnfinished:
        """What to answer a client whose quota is used up."""
        return TooManyUnfinished(self._most, _RETRY_AFTER_S)

    def note_accepted(self, client_id: str) -> None:
        self._accepted[client_id] += 1
        self._accepted_meanwhile[client_id] += 1

    def begin_walk(self, now: float) -> None:
        """The walk begins at the oldest task."""
        self._waiting.clear()
        self._held.clear()
        self._accepted_meanwhile = Counter()
        self._walk_began_at = now

    def see(self, task: TaskRecord) -> None:
        """The walk comes by a task; by a held one in each of its rounds."""
        if task.created_at >= self._walk_began_at:
            return  # counted where it was accepted
        if task.status is Status.PROCESSING:
            self._held[task.task_id] = task.client_id
        else:
            self._waiting[task.client_id] += 1

    def end_walk(self) -> None:
        """The walk has come by all tasks."""
        self._unfinished = self._waiting + Counter(self._held.values())
        self._accepted, self._accepted_meanwhile = self._accepted_meanwhile, Counter()
