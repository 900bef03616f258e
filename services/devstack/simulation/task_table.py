"""The task table in memory. Every write is one of `lib.gputask.transitions`, applied as DynamoDB would apply it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lib.asyncaws.conditions import Change
from lib.gputask.record import Status, TaskRecord
from services.shutdown.facts import Hold, Worker


class TaskTable:
    """Tasks, and the two records beside them: the worker's beat and the hold on starts."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}
        self._records: dict[str, TaskRecord] = {}
        self._live: dict[str, None] = {}
        self.worker: Worker | None = None
        self.hold: Hold | None = None

    def create(self, record: TaskRecord) -> None:
        self._put(record.task_id, record.to_item())
        self._live[record.task_id] = None

    def read(self, task_id: str) -> TaskRecord:
        return self._records[task_id]

    def write(self, task_id: str, change: Change) -> bool:
        """Whether the condition held, and so the change was made."""
        item = change.applied_to(self._items[task_id])
        if item is None:
            return False
        self._put(task_id, item)
        if Status(item["status"]).is_terminal:
            self._live.pop(task_id, None)
        return True

    def _put(self, task_id: str, item: dict[str, Any]) -> None:
        # Read far more often than written.
        self._items[task_id], self._records[task_id] = item, TaskRecord.from_item(item)

    @property
    def has_live(self) -> bool:
        return bool(self._live)

    def live(self) -> list[TaskRecord]:
        """Tasks that are not terminal, oldest first."""
        return [self.read(task_id) for task_id in self._live]

    def finished(self, *, since_s: float) -> Iterator[TaskRecord]:
        """Terminal tasks created since then, latest first."""
        for task_id in reversed(self._items):
            if self._items[task_id]["created_at"] < since_s:
                return
            if task_id not in self._live:
                yield self.read(task_id)

    def all(self) -> list[TaskRecord]:
        return [self.read(task_id) for task_id in self._items]
