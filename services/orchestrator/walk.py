"""A walk along the live tasks, in rounds that cost the same whatever waits."""

from __future__ import annotations

from dataclasses import dataclass

from lib.gputask.record import LIVE, Status, TaskRecord
from lib.gputask.store import TaskStore

# Ten pages: of 100,000 tasks each is looked at once in 50 min, and a round costs a cent a day.
_MOST_A_ROUND = 2000


@dataclass(frozen=True, slots=True)
class Round:
    """The next stretch of the walk.

    Attributes:
        seen: tasks that were passed since the walk began at the oldest, and these.
        begins: it begins there.
        ended: the statuses of which it has the last.
    """

    tasks: tuple[TaskRecord, ...]
    seen: int
    begins: bool
    ended: frozenset[Status]

    @property
    def ends(self) -> bool:
        """It has the last of all."""
        return len(self.ended) == len(LIVE)

    @property
    def is_whole(self) -> bool:
        """It has all there are."""
        return self.begins and self.ends


class Walk:
    """The oldest first, bounded per status: held tasks do not wait behind the waiting ones."""

    def __init__(self, store: TaskStore, *, most_a_round: int = _MOST_A_ROUND) -> None:
        self._store = store
        self._most = most_a_round
        self._places: dict[Status, TaskRecord | None] = dict.fromkeys(LIVE)
        self._passed = 0

    async def next_round(self) -> Round:
        """Of each status the tasks behind those that were passed; from the oldest on once all were."""
        begins = not any(self._places.values())
        stretches = {status: await self._next(status) for status in LIVE}
        tasks = [task for stretch in stretches.values() for task in stretch]
        if begins:
            self._passed = 0
        ended = frozenset(status for status, stretch in stretches.items() if len(stretch) < self._most)
        return Round(tuple(tasks), self._passed + len(tasks), begins, ended)

    def pass_by(self, task: TaskRecord) -> None:
        """The walk goes on behind this one, whatever comes of it: its turn comes again."""
        self._places[task.status] = task
        self._passed += 1

    def end_round(self, done: Round) -> None:
        """All tasks of the round were passed."""
        for status in done.ended:
            self._places[status] = None

    async def _next(self, status: Status) -> list[TaskRecord]:
        return [task async for task in self._store.in_status(status, after=self._places[status], most=self._most)]
