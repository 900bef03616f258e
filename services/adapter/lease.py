"""Holding a task while it is worked on: lease and message visibility are renewed together, on a task of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from lib.asyncaws.consumer import Delivery
from lib.asyncaws.errors import AwsError
from lib.gputask.record import TaskRecord
from lib.gputask.store import LeaseLost, TaskStore

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Renews leases.

    Attributes:
        lease_s: for how long each renewal holds; the visibility timeout.
        heartbeat_s: pause between renewals, a third of it.
    """

    store: TaskStore
    lease_s: int
    heartbeat_s: float

    async def during(self, task: TaskRecord, delivery: Delivery, work: Coroutine[Any, Any, T]) -> T:
        """Do the work and renew the lease meanwhile, whatever the work waits for.

        Raises:
            LeaseLost: the task is not ours any more; the work was cancelled and nothing may be published.
        """
        working = asyncio.create_task(work, name=f"work-{task.task_id}")
        beating = asyncio.create_task(self._beat(task, delivery), name=f"heartbeat-{task.task_id}")
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                beating.result()  # raises: a heartbeat has no other end
            return await working
        finally:
            for child in (beating, working):
                child.cancel()
            await asyncio.gather(beating, working, return_exceptions=True)

    async def _beat(self, task: TaskRecord, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        valid_until = loop.time() + self.lease_s
        while True:
            await asyncio.sleep(self.heartbeat_s)
            asked_at = loop.time()
            try:
                await self.store.hold(task, lease_s=self.lease_s)
                valid_until = asked_at + self.lease_s
            except AwsError as error:
                # Also what looks permanent: rotated credentials and the like are refused for a moment only.
                log.warning("heartbeat.failed", error=str(error), lease_left_s=round(valid_until - loop.time()))
                if loop.time() >= valid_until:
                    raise LeaseLost(task.task_id) from error
                continue
            await self._extend(delivery)

    async def _extend(self, delivery: Delivery) -> None:
        """The record is the truth about who owns the task, the message only a hint.

        If its receipt is lost (visibility ran out, or somebody purged the queue) while the record is still ours, then
        whoever receives it finds the lease and leaves the task alone. So the work goes on.
        """
        try:
            await delivery.extend(self.lease_s)
        except AwsError as error:
            log.warning("heartbeat.message_not_extended", error=str(error))
