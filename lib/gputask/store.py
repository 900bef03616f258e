"""The task table: every verb of a task's life, each one conditional write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lib.asyncaws.conditions import Change
from lib.asyncaws.errors import ConditionFailed
from lib.asyncaws.table import Table
from lib.gputask import transitions
from lib.gputask.record import LIVE, ErrorCode, Status, TaskRecord
from lib.gputask.schema import STATUS_INDEX, STATUS_INDEX_KEY, TABLE_KEY, TTL_ATTRIBUTE

Clock = Callable[[], float]

# How many of the oldest live tasks the index is asked for: some that are stale, or that nobody can read, must not hide
# the others. They are confirmed in the table a few at a time, nearly always with the first.
_NAMED = 100
_CONFIRMED_AT_ONCE = 5

# A record is paid for by the kilobyte at every write of its life: https://aws.amazon.com/dynamodb/pricing/on-demand/.
# A request of common size rides along; a larger one is written once, in an item of its own.
MOST_INLINE_BYTES = 1024

# Whoever repeats a verb rather than its request does so at a later time.
_TIMES_OF_WRITE = frozenset({"updated_at", "finished_at", "queued_at"})


class AlreadyExists(Exception):
    """A task with this id is there already.

    Attributes:
        record: that task.
    """

    def __init__(self, record: TaskRecord) -> None:
        super().__init__(record.task_id)
        self.record = record


class NotClaimable(Exception):
    """The task cannot be taken.

    Attributes:
        record: the task as it is; None if there is none.
    """

    def __init__(self, record: TaskRecord | None) -> None:
        super().__init__("no such task" if record is None else f"{record.task_id} is {record.status}")
        self.record = record


class LeaseLost(Exception):
    """The task is not ours any more: somebody gave it up, or it was claimed again. Publish nothing."""


class Overtaken(Exception):
    """The record changed since it was read; look again."""


@dataclass(frozen=True, slots=True)
class TaskStore:
    """Reads and conditional writes of tasks.

    All methods raise `TransientAwsError` and `PermanentAwsError` besides what they name.

    Attributes:
        clock: epoch seconds.
    """

    table: Table
    clock: Clock

    def now(self) -> float:
        """Epoch seconds, in whole milliseconds as the table keeps them."""
        return round(self.clock(), 3)

    async def get(self, task_id: str) -> TaskRecord | None:
        """The task, None if unknown, withdrawn or expired."""
        record = await self.find(task_id)
        is_gone = record is None or record.is_withdrawn or record.is_expired(self.now())
        return None if is_gone else record

    async def find(self, task_id: str) -> TaskRecord | None:
        """Whatever the table knows by this id, None if nothing."""
        return _record_or_none(await self.table.get(task_id))

    async def create(self, record: TaskRecord) -> None:
        """Write a new task. A large request goes first, so that no record lacks its own; TTL deletes both.

        Raises:
            AlreadyExists: with the task that has the id.
        """
        item = record.to_item()
        if len(record.request_body.encode()) > MOST_INLINE_BYTES:
            await self.table.put(_request_item(record))
            del item["request_body"]
        try:
            await self.table.put(item, transitions.creatable(self.now()))
        except ConditionFailed as error:
            existing = _record_or_none(error.item)
            if existing is None:
                raise
            raise AlreadyExists(existing) from error

    async def with_request(self, record: TaskRecord) -> TaskRecord:
        """The record with its request, which `get` leaves out where it is large; without, if the request is lost."""
        if record.request_body:
            return record
        item = await self.table.get(_request_key(record))
        text = item.get("request_body") if item else None
        return replace(record, request_body=text) if isinstance(text, str) else record

    async def withdraw(self, record: TaskRecord) -> None:
        """Take back a task whose message could not be sent, unless somebody has touched it.

        Raises:
            Overtaken: somebody has.
        """
        try:
            await self.table.update(record.task_id, transitions.withdraw(record, now=self.now()))
        except ConditionFailed as error:
            found = _record_or_none(error.item)
            if error.item is None or (found is not None and found.is_withdrawn):
                return  # never written, or withdrawn by this very write, its answer lost
            raise Overtaken(record.task_id) from error

    async def claim(self, task_id: str, *, worker: str, lease_s: float, max_attempts: int) -> TaskRecord:
        """Take the task for `lease_s` seconds.

        Raises:
            NotClaimable: with the task as it is: finished, leased to somebody, or out of attempts.
        """
        now = self.now()
        change = transitions.claim(
            worker=worker, now=now, lease_until=round(now + lease_s, 3), max_attempts=max_attempts
        )
        try:
            return TaskRecord.from_item(await self._with_sound_attempt(task_id, await self._claimed(task_id, change)))
        except ConditionFailed as error:
            record = _record_or_none(error.item)
            if record is not None and record.is_leased(now) and (record.worker, record.claimed_at) == (worker, now):
                return record  # this very claim succeeded, its answer was lost, and the retry found its effect
            raise NotClaimable(record) from error

    async def _claimed(self, task_id: str, change: Change) -> Mapping[str, Any]:
        try:
            return await self.table.update(task_id, change)
        except ConditionFailed as error:
            if _is_number(error.item.get("attempt", 0) if error.item else 0):
                raise
        with suppress(ConditionFailed):
            await self.table.update(task_id, transitions.count_attempts_anew(self.now()))
        return await self.table.update(task_id, change)

    async def _with_sound_attempt(self, task_id: str, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """Every write of the holder names its attempt, and to a number of another kind none of them would be equal."""
        attempt = item["attempt"]
        if attempt >= 1 and attempt == int(attempt):
            return item
        return await self.table.update(task_id, transitions.mend_attempt(attempt=attempt, now=self.now()))

    async def hold(self, task: TaskRecord, *, lease_s: float) -> None:
        """Renew the lease. Raises LeaseLost."""
        now = self.now()
        await self._as_holder(
            task, transitions.hold(attempt=task.attempt, now=now, lease_until=round(now + lease_s, 3))
        )

    async def note_upstream_job(self, task: TaskRecord, comfy_job_id: str) -> None:
        """Remember the run upstream. Raises LeaseLost."""
        change = transitions.note_upstream_job(attempt=task.attempt, now=self.now(), comfy_job_id=comfy_job_id)
        await self._as_holder(task, change)

    async def finish(self, task: TaskRecord, *, result_s3_uri: str) -> None:
        """Complete the task. Raises LeaseLost."""
        await self._as_holder(
            task, transitions.finish(attempt=task.attempt, now=self.now(), result_s3_uri=result_s3_uri)
        )

    async def fail(self, task: TaskRecord, *, code: ErrorCode, message: str) -> None:
        """Fail the task. Raises LeaseLost."""
        change = transitions.fail(attempt=task.attempt, now=self.now(), code=code, message=message)
        await self._as_holder(task, change)

    async def release(self, task: TaskRecord, *, keep_upstream_job: bool, spare: bool = False) -> None:
        """Give the task back; with `spare` this claim of it does not count as an attempt. Raises LeaseLost."""
        spared = task.spared + 1 if spare else None
        change = transitions.release(
            attempt=task.attempt, now=self.now(), keep_upstream_job=keep_upstream_job, spared=spared
        )
        await self._as_holder(task, change)

    async def resend(self, record: TaskRecord) -> None:
        """Announce another message for a task that waits too long.

        Raises:
            Overtaken: it does not wait any more, or another replica announced it.
        """
        await self._unless_overtaken(record.task_id, transitions.resend(record, now=self.now()))

    async def give_up(self, task_id: str, *, code: ErrorCode, message: str) -> None:
        """Fail a task that no worker holds.

        Raises:
            Overtaken: it is held, finished or gone.
        """
        await self._unless_overtaken(task_id, transitions.give_up(now=self.now(), code=code, message=message))

    async def in_status(
        self, status: Status, *, after: TaskRecord | None = None, most: int | None = None
    ) -> AsyncIterator[TaskRecord]:
        """Tasks of a status, the oldest first, as the index knows them: without requests.

        Args:
            after: begins behind this one, which may have left the status meanwhile.
            most: how many at the most; all if None.
        """
        place = None if after is None else _place_in_index(status, after)
        async for item in self.table.query(STATUS_INDEX, attribute="status", value=status, after=place, limit=most):
            yield TaskRecord.from_item(item)

    async def has_live(self) -> bool:
        """Is there any task that is not terminal? A few cheap reads, however many tasks there are.

        The index, which is eventually consistent, names the oldest; the table confirms it, for a start costs money.
        """
        for status in LIVE:
            named = [
                str(item[TABLE_KEY])
                async for item in self.table.query(STATUS_INDEX, attribute="status", value=status, limit=_NAMED)
            ]
            for some in (named[at : at + _CONFIRMED_AT_ONCE] for at in range(0, len(named), _CONFIRMED_AT_ONCE)):
                if any(await asyncio.gather(*(self._is_live(task_id) for task_id in some))):
                    return True
        return False

    async def _is_live(self, task_id: str) -> bool:
        task = await self.get(task_id)
        return task is not None and not task.status.is_terminal

    async def _as_holder(self, task: TaskRecord, change: Change) -> None:
        try:
            await self.table.update(task.task_id, change)
        except ConditionFailed as error:
            if _is_own_echo(error.item, task, change):
                return
            raise LeaseLost(task.task_id) from error

    async def _unless_overtaken(self, task_id: str, change: Change) -> None:
        try:
            await self.table.update(task_id, change)
        except ConditionFailed as error:
            raise Overtaken(task_id) from error


def _is_own_echo(item: Mapping[str, Any] | None, task: TaskRecord, change: Change) -> bool:
    """Did this write succeed before, its answer lost, and the retry now find its effect?

    Only a write that takes the task out of work can; the others still hold for what they made.
    """
    if item is None or item.get("attempt") != task.attempt or "status" not in change.assign:
        return False
    lasting = change.assign.keys() - _TIMES_OF_WRITE
    return all(item.get(name) == change.assign[name] for name in lasting)


def _record_or_none(item: Mapping[str, Any] | None) -> TaskRecord | None:
    """None also for what is no task: a worker's record, or one in a state that this version does not know."""
    if item is None or item.get("status") not in list(Status):
        return None
    return TaskRecord.from_item(item)


def _place_in_index(status: Status, task: TaskRecord) -> dict[str, Any]:
    return {**dict(zip(STATUS_INDEX_KEY, (status, task.created_at), strict=True)), TABLE_KEY: task.task_id}


def _request_key(record: TaskRecord) -> str:
    """With the request's hash: another request that comes by the same Idempotency-Key must not replace this one."""
    return f"request#{record.task_id}#{record.request_sha256[:16]}"


def _request_item(record: TaskRecord) -> dict[str, Any]:
    item = {TABLE_KEY: _request_key(record), "request_body": record.request_body, TTL_ATTRIBUTE: record.expires_at}
    return {name: value for name, value in item.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
