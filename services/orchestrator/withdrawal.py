"""Taking back the records of tasks that nobody was promised, for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from lib.asyncaws.errors import AwsError
from lib.daemon.waiting import wait_for_any
from lib.gputask.record import TaskRecord
from lib.gputask.store import Overtaken, TaskStore

# Beyond it the janitor has them run: a process that has so many to take back has other troubles.
_MOST = 10_000
_AT_ONCE = 16
_FIRST_PAUSE_S = 0.5
_MAX_PAUSE_S = 30.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    record: TaskRecord
    due: float
    pause_s: float


class Withdrawals:
    """What is still to be taken back.

    Attributes:
        store: over clients that have more patience than those of a request.
        most: how many may wait.
        first_pause_s: before the second try; doubles each time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: TaskStore,
        *,
        most: int = _MOST,
        first_pause_s: float = _FIRST_PAUSE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._store = store
        self._most = most
        self._first_pause_s = first_pause_s
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._entries: dict[str, _Entry] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, record: TaskRecord, *, after_s: float = 0.0) -> None:
        """Take a record back, soon or `after_s` from now. Never waits, and never fails."""
        if len(self._entries) >= self._most:
            log.warning("withdrawal.given_up", job_id=record.task_id, waiting=len(self._entries))
            return
        # Its body is not needed, and may be large.
        light = replace(record, request_body="")
        self._entries[record.task_id] = _Entry(light, self._clock() + after_s, self._first_pause_s)
        self._changed.set()

    async def run(self, finish: asyncio.Event) -> None:
        """Take back what is there and what comes; after `finish`, until nothing is left."""
        while self._entries or not finish.is_set():
            self._changed.clear()
            await asyncio.gather(*(self._try(entry) for entry in self._due()))
            await self._wait(finish)

    def _due(self) -> list[_Entry]:
        now = self._clock()
        return [entry for entry in self._entries.values() if entry.due <= now][:_AT_ONCE]

    async def _wait(self, finish: asyncio.Event) -> None:
        if not self._entries:
            await wait_for_any((self._changed, finish), _MAX_PAUSE_S)
            return
        pause_s = min(entry.due for entry in self._entries.values()) - self._clock()
        if pause_s > 0:
            await wait_for_any((self._changed,), pause_s)

    async def _try(self, entry: _Entry) -> None:
        task_id = entry.record.task_id
        try:
            await self._store.withdraw(entry.record)
        except Overtaken:
            pass  # another request with its key has announced a message for it
        except AwsError as error:
            log.warning("withdrawal.failed", job_id=task_id, error=str(error), retry_in_s=entry.pause_s)
            pause_s = min(entry.pause_s * 2, _MAX_PAUSE_S)
            self._entries[task_id] = replace(entry, due=self._clock() + entry.pause_s, pause_s=pause_s)
            return
        self._entries.pop(task_id, None)
        log.info("withdrawal.done", job_id=task_id)
