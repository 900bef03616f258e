"""What the task table must hold, kept by hand: the rules of a task's life once more, written from the design's table.

Nothing here is taken from the code that it judges, except the names of verbs and attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lib.gputask.record import TaskRecord

Item = dict[str, Any]
_DONE = ("completed", "failed")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a verb ended.

    Attributes:
        name: ``ok``, or the name of the refusal.
        item: the task the answer speaks of.
    """

    name: str
    item: Item | None = None


OK = Answer("ok")
LEASE_LOST = Answer("LeaseLost")
OVERTAKEN = Answer("Overtaken")


@dataclass(slots=True)
class Ledger:
    """Takes the verbs of the store, each with the time of its request.

    Attributes:
        items: task id to item.
        leavings: task id to how its last worker let go of it: a repetition of just that is no news, and no refusal.
    """

    items: dict[str, Item] = field(default_factory=dict)
    leavings: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def create(self, record: TaskRecord, *, now: float) -> Answer:
        there = self.items.get(record.task_id)
        if there is not None and there["expires_at"] > now and there.get("error_code") != "withdrawn":
            return Answer("AlreadyExists", dict(there))
        self.items[record.task_id] = record.to_item()
        self.leavings.pop(record.task_id, None)
        return OK

    def withdraw(self, record: TaskRecord, *, now: float) -> Answer:
        there = self.items.get(record.task_id)
        if there is None or there.get("error_code") == "withdrawn":
            return OK
        untouched = there["status"] == "pending" and there["attempt"] == 0 and there["sends"] == 1
        if not untouched or there["created_at"] != record.created_at:
            return OVERTAKEN
        del there["created_at"]
        there.update(status="failed", error_code="withdrawn", error_message="its client was told to try again")
        there.update(finished_at=now, updated_at=now)
        return OK

    def claim(self, task_id: str, *, worker: str, lease_s: float, max_attempts: int, now: float) -> Answer:
        there = self.items.get(task_id)
        if there is None:
            return Answer("NotClaimable")
        if self._is_free(there, now) and there["attempt"] < max_attempts:
            there.update(status="processing", attempt=there["attempt"] + 1, worker=worker)
            there.update(claimed_at=now, lease_until=round(now + lease_s, 3), updated_at=now)
            self.leavings.pop(task_id, None)
            return Answer("ok", dict(there))
        is_mine = there["status"] == "processing" and (there["worker"], there["claimed_at"]) == (worker, now)
        if is_mine and there["lease_until"] > now:
            return Answer("ok", dict(there))
        return Answer("NotClaimable", dict(there))

    def hold(self, task: TaskRecord, *, lease_s: float, now: float) -> Answer:
        return self._as_holder(task, lease_until=round(now + lease_s, 3), updated_at=now)

    def note_upstream_job(self, task: TaskRecord, comfy_job_id: str, *, now: float) -> Answer:
        return self._as_holder(task, comfy_job_id=comfy_job_id, updated_at=now)

    def finish(self, task: TaskRecord, *, result_s3_uri: str, now: float) -> Answer:
        change = {"status": "completed", "result_s3_uri": result_s3_uri, "finished_at": now, "updated_at": now}
        return self._leave(task, ("finish", task.attempt, result_s3_uri), change, ("lease_until",))

    def fail(self, task: TaskRecord, *, code: str, message: str, now: float) -> Answer:
        change = self._failure(code, message, now)
        return self._leave(task, ("fail", task.attempt, code, message), change, ("lease_until",))

    def release(self, task: TaskRecord, *, keep_upstream_job: bool, now: float) -> Answer:
        gone = ("lease_until", "worker") if keep_upstream_job else ("lease_until", "worker", "comfy_job_id")
        change = {"status": "pending", "queued_at": now, "updated_at": now}
        answer = self._leave(task, ("release", task.attempt), change, gone)
        run_is_left = "comfy_job_id" in self.items.get(task.task_id, {})
        # Given back with its run and given back without it are not the same.
        return LEASE_LOST if answer is OK and run_is_left and not keep_upstream_job else answer

    def resend(self, record: TaskRecord, *, now: float) -> Answer:
        there = self.items.get(record.task_id)
        if there is None or not self._is_free(there, now):
            return OVERTAKEN
        if (there["queued_at"], there["sends"]) != (record.queued_at, record.sends):
            return OVERTAKEN
        there.update(queued_at=now, updated_at=now, sends=there["sends"] + 1)
        return OK

    def give_up(self, task_id: str, *, code: str, message: str, now: float) -> Answer:
        there = self.items.get(task_id)
        if there is None or not self._is_free(there, now):
            return OVERTAKEN
        there.update(self._failure(code, message, now))
        there.pop("lease_until", None)
        self.leavings.pop(task_id, None)
        return OK

    def _is_free(self, there: Item, now: float) -> bool:
        return bool(there["status"] == "pending" or (there["status"] == "processing" and there["lease_until"] <= now))

    def _as_holder(self, task: TaskRecord, **change: Any) -> Answer:
        there = self.items.get(task.task_id)
        if there is None or there["status"] != "processing" or there["attempt"] != task.attempt:
            return LEASE_LOST
        there.update(change)
        return OK

    def _leave(self, task: TaskRecord, how: tuple[Any, ...], change: Item, gone: tuple[str, ...]) -> Answer:
        if self._as_holder(task, **change) is LEASE_LOST:
            return OK if self.leavings.get(task.task_id) == how else LEASE_LOST
        for name in gone:
            self.items[task.task_id].pop(name, None)
        self.leavings[task.task_id] = how
        return OK

    def _failure(self, code: str, message: str, now: float) -> Item:
        return {
            "status": "failed",
            "error_code": code,
            "error_message": message,
            "finished_at": now,
            "updated_at": now,
        }


def is_done(item: Item) -> bool:
    return str(item["status"]) in _DONE
