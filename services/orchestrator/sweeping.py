"""Deletes the messages of ended tasks, which on the GPU instance would be paid for by the second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lib.asyncaws.queue import Message, Queue
from lib.gputask.message import task_id_in
from lib.gputask.store import TaskStore

_BATCH = 10
# A message of a live task that was met stays hidden for so long. Were it seen again at once, one sweep would receive it
# many times, and after its tenth receive it would be a dead letter.
_HIDDEN_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeper:
    """Receives like a worker, and so makes a worker wait: only for a queue that holds more than the live tasks need."""

    store: TaskStore
    queue: Queue

    async def sweep(self, most: int, stop: asyncio.Event) -> int:
        """Delete up to about `most` obsolete messages, until most of what comes is none, and tell how many went.

        Raises:
            AwsError: the queue or the table refuses.
        """
        deleted = 0
        while deleted < most and not stop.is_set():
            messages = await self.queue.receive(limit=_BATCH, wait_s=0, visibility_s=_HIDDEN_S)
            went = sum(await asyncio.gather(*map(self._delete_if_obsolete, messages)))
            deleted += went
            if 2 * went <= len(messages):
                break
        return deleted

    async def _delete_if_obsolete(self, message: Message) -> bool:
        task_id = task_id_in(message.body)
        task = await self.store.find(task_id) if task_id else None
        if task is None or not task.status.is_terminal:
            return False  # of a live task, or for the dead-letter queue to keep
        await self.queue.delete(message.receipt)
        return True
