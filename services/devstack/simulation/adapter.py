"""A model of the adapter and the Unified API behind it: one slot, leases renewed, drained on a stop.

The adapter's code is asyncio from end to end, so its order of steps is repeated here; what it may write is not: those
are the transitions of `lib.gputask`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib.asyncaws.conditions import Change
from lib.gputask import transitions
from lib.gputask.record import ErrorCode, Status, TaskRecord
from services.devstack.simulation.chronicle import Chronicle
from services.devstack.simulation.clock import Clock, Timer
from services.devstack.simulation.message_queue import Message, MessageQueue
from services.devstack.simulation.numbers import (
    BEAT_S,
    DEADLINE_S,
    DRAIN_S,
    HEARTBEAT_S,
    LEASE_S,
    MAX_ATTEMPTS,
)
from services.devstack.simulation.task_table import TaskTable
from services.devstack.simulation.traces import NEVER, Job, Span
from services.shutdown.facts import Worker


@dataclass(slots=True)
class _Work:
    task: TaskRecord
    message: Message
    since_s: float
    end: Timer | None = None


class Adapter:
    """Runs on the machine; `jobs` says how long each task takes upstream."""

    def __init__(
        self,
        clock: Clock,
        *,
        queue: MessageQueue,
        table: TaskTable,
        chronicle: Chronicle,
        jobs: Mapping[str, Job],
        broken: Span,
    ) -> None:
        self._clock = clock
        self._queue = queue
        self._table = table
        self._chronicle = chronicle
        self._jobs = jobs
        self._broken = broken
        self._is_up = False
        self._is_receiving = False
        self._upstream_silent_until_s = 0.0
        self._upstream_ok_at_s: float | None = None
        self._last_claim_at_s: float | None = None
        self._work: _Work | None = None
        self._coming_up: Timer | None = None
        clock.every(BEAT_S, self._beat)
        if broken is not NEVER:
            clock.at(broken.since_s, self._break_down)
        queue.listen(self._take)

    def boot(self) -> None:
        """The units start; a broken adapter is restarted by systemd until it is repaired."""
        self._upstream_silent_until_s = 0.0
        self._upstream_ok_at_s = None
        self._last_claim_at_s = None
        if self._broken.covers(self._clock.now_s):
            self._coming_up = self._clock.at(self._broken.until_s, self._come_up)
        else:
            self._come_up()

    def terminate(self) -> None:
        """SIGTERM: receive no more; what ends within the drain is published."""
        self._is_receiving = False
        self._chronicle.stop_ordered()
        if self._coming_up:
            self._coming_up.cancel()
        if self._work:
            self._clock.after(DRAIN_S, self._give_back)

    def halt(self) -> None:
        self._is_up = False

    def _break_down(self) -> None:
        """A bad version is installed. The traces do so while no job is in work."""
        if self._is_up:
            self._is_up = self._is_receiving = False
            self._coming_up = self._clock.at(self._broken.until_s, self._come_up)

    def _come_up(self) -> None:
        self._is_up = self._is_receiving = True
        self._beat()
        self._take()

    def _beat(self) -> None:
        """Tell the table how it goes. The long poll that is open meanwhile keeps the queue active."""
        if not self._is_up:
            return
        now_s = self._clock.now_s
        if self._work or now_s >= self._upstream_silent_until_s:
            self._upstream_ok_at_s = now_s
        self._queue.touch()
        self._table.worker = Worker(
            beat_at=now_s, upstream_ok_at=self._upstream_ok_at_s, last_claim_at=self._last_claim_at_s
        )

    def _take(self) -> None:
        """Receive while the slot is free and the Unified API answers."""
        while self._is_receiving and not self._work and self._clock.now_s >= self._upstream_silent_until_s:
            message = self._queue.receive()
            if message is None:
                return
            self._handle(message)

    def _handle(self, message: Message) -> None:
        now_s = self._clock.now_s
        claim = transitions.claim(worker="gpu", now=now_s, lease_until=now_s + LEASE_S, max_attempts=MAX_ATTEMPTS)
        if not self._table.write(message.task_id, claim):
            self._decline(message)
            return
        self._last_claim_at_s = now_s
        task = self._table.read(message.task_id)
        # The job table of the Unified API lives in memory: a run of an earlier boot is forgotten, and submitted again.
        run_id = f"run-{task.task_id}-{task.attempt}"
        note = transitions.note_upstream_job(attempt=task.attempt, now=now_s, comfy_job_id=run_id)
        self._table.write(task.task_id, note)
        self._begin(_Work(task, message, now_s))

    def _decline(self, message: Message) -> None:
        now_s, task = self._clock.now_s, self._table.read(message.task_id)
        if task.status.is_terminal:
            self._queue.delete(message)
        elif task.is_leased(now_s):
            self._queue.hide(message, (task.lease_until or now_s) - now_s + 1)
        else:
            lost = task.status is Status.PROCESSING
            code = ErrorCode.WORKER_LOST if lost else ErrorCode.ATTEMPTS_EXHAUSTED
            self._table.write(task.task_id, transitions.give_up(now=now_s, code=code, message=code))
            self._queue.delete(message)

    def _begin(self, work: _Work) -> None:
        self._work = work
        self._chronicle.work_began()
        job = self._jobs[work.task.task_id]
        if job.run_s <= DEADLINE_S:
            work.end = self._clock.after(job.run_s, self._finish)
        elif not job.outlives_deadline:
            work.end = self._clock.after(DEADLINE_S, self._miss_deadline)
        self._clock.after(HEARTBEAT_S, lambda: self._hold(work))
        self._beat()

    def _hold(self, work: _Work) -> None:
        """Renew lease and visibility together; a lost lease ends the work, and publishes nothing."""
        if self._work is not work:
            return
        now_s = self._clock.now_s
        hold = transitions.hold(attempt=work.task.attempt, now=now_s, lease_until=now_s + LEASE_S)
        if not self._table.write(work.task.task_id, hold):
            self._drop()
            return
        self._queue.hide(work.message, LEASE_S)
        self._clock.after(HEARTBEAT_S, lambda: self._hold(work))

    def _finish(self) -> None:
        assert self._work is not None
        task_id, attempt = self._work.task.task_id, self._work.task.attempt
        uri = f"s3://results/{task_id}"
        self._publish(transitions.finish(attempt=attempt, now=self._clock.now_s, result_s3_uri=uri))

    def _miss_deadline(self) -> None:
        assert self._work is not None
        attempt, code = self._work.task.attempt, ErrorCode.DEADLINE
        self._publish(transitions.fail(attempt=attempt, now=self._clock.now_s, code=code, message=code))

    def _publish(self, change: Change) -> None:
        """Record first, message last, then on to the next."""
        work = self._drop()
        if self._table.write(work.task.task_id, change):
            self._queue.delete(work.message)
        self._beat()
        self._take()

    def _give_back(self) -> None:
        """The drain is over: the machine goes down with the job in mid-work."""
        if not self._work:
            return
        work = self._drop()
        release = transitions.release(attempt=work.task.attempt, now=self._clock.now_s, keep_upstream_job=True)
        if self._table.write(work.task.task_id, release):
            self._queue.hide(work.message, 0)
            self._chronicle.job_killed()

    def _drop(self) -> _Work:
        """The slot is free again; a run that goes on upstream keeps it silent until its end."""
        work = self._work
        assert work is not None
        if work.end:
            work.end.cancel()
        self._work = None
        self._upstream_silent_until_s = work.since_s + self._jobs[work.task.task_id].run_s
        if self._clock.now_s < self._upstream_silent_until_s < float("inf"):
            self._clock.at(self._upstream_silent_until_s, self._take)
        self._chronicle.work_ended()
        return work
