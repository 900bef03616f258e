"""Keeps the table honest: what the queue lost is sent again; what it gave up on, and what is too old, is failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from lib.asyncaws.errors import AwsError, PermanentAwsError
from lib.asyncaws.queue import Message, Queue
from lib.daemon.waiting import wait_for
from lib.gputask.kinds import KINDS_BY_PATH
from lib.gputask.message import PoisonMessage, TaskMessage, task_id_in
from lib.gputask.record import LIVE, ErrorCode, Status, TaskRecord
from lib.gputask.store import Overtaken, TaskStore
from services.orchestrator.meter import SILENT, Meter
from services.orchestrator.submission import attributes_of, message_of
from services.orchestrator.tidying import Burial, Limits, Verdict, decide, decide_letter, is_lost

_BATCH = 10
# Long enough to deal with a batch; what is left comes again at the next round.
_DLQ_VISIBILITY_S = 60
# Ten pages: of 100,000 tasks each is looked at once in 50 min, and a round costs a cent a day.
_MOST_A_ROUND = 2000

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Janitor:
    """Drains the dead-letter queue, and beside that walks along the live tasks. Safe to run in every replica.

    A round of the walk is bounded, so that it costs the same whatever waits, and per status, so that held tasks do not
    wait behind the waiting ones. The next round goes on where it ended.

    A record that makes no sense, say after a hand at the console, is reported and left out: it must neither keep the
    others from being looked at nor end the service in every replica, round after round.

    Attributes:
        most_a_round: tasks of each status, and dead letters.
        places: per status the task behind which the next round goes on.
        kept: the dead letters of unknown tasks that were reported, by message id.
    """

    store: TaskStore
    queue: Queue
    dead_letters: Queue
    limits: Limits
    interval_s: float
    meter: Meter = SILENT
    most_a_round: int = _MOST_A_ROUND
    places: dict[Status, TaskRecord] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Rounds of each duty now and then every `interval_s` until `stop`."""
        # Side by side: a duty that fails, or has much to do, must not keep the other from being done.
        async with asyncio.TaskGroup() as duties:
            duties.create_task(self._repeat(self.drain_dead_letters, stop), name="dead-letters")
            duties.create_task(self._repeat(self.tidy, stop), name="tidy")

    async def _repeat(self, duty: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await duty(stop)
            except AwsError as error:
                _report(error, "janitor.round_failed", duty=duty.__name__)
            await wait_for(stop, self.interval_s)

    async def tidy(self, stop: asyncio.Event) -> None:
        """Look at the next live tasks of each status, to its end at the most."""
        for status in LIVE:
            await self._walk_on(status, stop)

    async def _walk_on(self, status: Status, stop: asyncio.Event) -> None:
        seen = 0
        async for task in self.store.in_status(status, after=self.places.get(status)):
            if stop.is_set():
                return
            # An error ends a round as its bound does: the next one goes on behind this task, whose turn comes again.
            self.places[status] = task
            await self._look_at(task)
            seen += 1
            if seen >= self.most_a_round:
                return
        self.places.pop(status, None)

    async def _look_at(self, task: TaskRecord) -> None:
        try:
            await self._treat(task, decide(task, now=self.store.now(), limits=self.limits))
        except Overtaken:
            log.debug("task.overtaken", job_id=task.task_id)
        except PermanentAwsError as error:
            # Perhaps only this task's fault: the others get their turn.
            _report(error, "task.tidying_failed", job_id=task.task_id)
        except (TypeError, ValueError):
            log.exception("record.unreadable", job_id=task.task_id)

    async def drain_dead_letters(self, stop: asyncio.Event) -> None:
        """Fail the tasks of dead letters; nothing else tells their clients. A letter leaves after its task's end."""
        known = len(self.kept)
        for _ in range(self.most_a_round // _BATCH):
            if stop.is_set():
                break
            letters = await self.dead_letters.receive(limit=_BATCH, wait_s=0, visibility_s=_DLQ_VISIBILITY_S)
            if not letters:
                break
            for letter in letters:
                await self._look_at_letter(letter)
        if len(self.kept) > known:
            log.error("dead_letters.of_unknown_tasks", new=len(self.kept) - known, in_all=len(self.kept))

    async def _look_at_letter(self, letter: Message) -> None:
        try:
            if await self._bury(letter):
                await self.dead_letters.delete(letter.receipt)
        except PermanentAwsError as error:
            _report(error, "dead_letter.burial_failed", message_id=letter.id)
        except (TypeError, ValueError):
            log.exception("record.unreadable", message_id=letter.id)

    async def _treat(self, task: TaskRecord, verdict: Verdict) -> None:
        match verdict:
            case Verdict.RESEND:
                await self._resend(task)
            case Verdict.EXPIRE:
                message = f"not finished within {self.limits.max_age_s / 3600:g} h"
                await self.store.give_up(task.task_id, code=ErrorCode.EXPIRED, message=message)
                self.meter.failed(ErrorCode.EXPIRED)
                log.warning("task.failed", job_id=task.task_id, error_code=ErrorCode.EXPIRED)
            case Verdict.KEEP:
                pass

    async def _resend(self, task: TaskRecord) -> None:
        known = await self.store.get(task.task_id)
        if known is None or known.status.is_terminal:
            return
        complete = await self.store.with_request(known)  # of which the index knows nothing
        if not complete.request_body:
            await self._fail_if_lost(task)
            return
        # Announced before it is sent: dying in between costs a wait, the other order a message per replica. Announced
        # for the task as it was judged: one that another replica has sent since must not pass for one that waits.
        await self.store.resend(task)
        await self.queue.send(message_of(complete), attributes_of(complete))
        log.warning("task.sent_again", job_id=task.task_id, sends=task.sends + 1)

    async def _fail_if_lost(self, task: TaskRecord) -> None:
        if is_lost(task, now=self.store.now(), limits=self.limits):
            reason = "its message is lost, and its request is not in its record"
            await self.store.give_up(task.task_id, code=ErrorCode.WORKER_LOST, message=reason)
            self.meter.failed(ErrorCode.WORKER_LOST)
            log.warning("task.failed", job_id=task.task_id, error_code=ErrorCode.WORKER_LOST)

    async def _bury(self, letter: Message) -> bool:
        """Returns whether the letter may go."""
        task_id = task_id_in(letter.body)
        if task_id is None:
            log.error("dead_letter.unreadable", message_id=letter.id, size_bytes=len(letter.body))
            return True
        task = await self.store.find(task_id)
        is_runnable = _is_runnable(letter) and await self._has_request(task)
        match decide_letter(task, is_runnable=is_runnable, now=self.store.now()):
            case Burial.WAIT:
                return False
            case Burial.KEEP:
                self.kept.add(letter.id)
                return False
            case Burial.NOTHING_LEFT:
                return True
            case Burial.RESEND if task is not None:
                return await self._rescue(task, letter)
            case _:
                return await self._fail_dead(task_id, letter)

    async def _has_request(self, task: TaskRecord | None) -> bool:
        return task is not None and bool((await self.store.with_request(task)).request_body)

    async def _rescue(self, task: TaskRecord, letter: Message) -> bool:
        try:
            await self._resend(task)
        except Overtaken:
            return False  # another replica sends it, or a worker has it: the letter is looked at again
        log.warning("dead_letter.sent_again", job_id=task.task_id, message_id=letter.id, attempt=task.attempt)
        return True

    async def _fail_dead(self, task_id: str, letter: Message) -> bool:
        reason = "the queue gave up delivering this job; its message cannot be processed"
        try:
            await self.store.give_up(task_id, code=ErrorCode.DEAD_LETTER, message=reason)
        except Overtaken:
            return False
        self.meter.failed(ErrorCode.DEAD_LETTER)
        log.warning("task.failed", job_id=task_id, error_code=ErrorCode.DEAD_LETTER, message_id=letter.id)
        return True


def _is_runnable(letter: Message) -> bool:
    try:
        return TaskMessage.from_json(letter.body).api_path in KINDS_BY_PATH
    except PoisonMessage:
        return False


def _report(error: AwsError, event: str, **fields: str) -> None:
    """What only the operator can mend is an error; the janitor goes on, and needs no restart when it is mended."""
    write = log.error if isinstance(error, PermanentAwsError) else log.warning
    write(event, error=str(error), **fields)
