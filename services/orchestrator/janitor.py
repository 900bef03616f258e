"""Keeps the table honest: what the queue lost is sent again; what it gave up on, and what is too old, is failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from lib.asyncaws.errors import AwsError, PermanentAwsError
from lib.asyncaws.queue import Depth, Message, Queue
from lib.daemon.waiting import wait_for
from lib.gputask.kinds import KINDS_BY_PATH
from lib.gputask.message import PoisonMessage, TaskMessage, task_id_in
from lib.gputask.record import ErrorCode, TaskRecord
from lib.gputask.store import Overtaken, TaskStore
from services.orchestrator.meter import SILENT, Meter
from services.orchestrator.quota import Quota
from services.orchestrator.submission import attributes_of, message_of
from services.orchestrator.sweeping import Sweeper
from services.orchestrator.tidying import Burial, Limits, Verdict, covers, decide, decide_letter, is_lost, surplus
from services.orchestrator.walk import Walk

_BATCH = 10
# Long enough to deal with a batch; what is left comes again at the next round.
_DLQ_VISIBILITY_S = 60
_MOST_LETTERS = 2000

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Janitor:
    """Drains the dead-letter queue, and beside that walks along the live tasks. Safe to run in every replica.

    Two duties, each for a task of its own: one that fails, or has much to do, must not keep the other from being done.

    Attributes:
        most_letters: dead letters a round.
        kept: the dead letters of unknown tasks that were reported, by message id.
    """

    store: TaskStore
    walk: Walk
    quota: Quota
    queue: Queue
    dead_letters: Queue
    limits: Limits
    interval_s: float
    meter: Meter = SILENT
    most_letters: int = _MOST_LETTERS
    kept: set[str] = field(default_factory=set)

    async def watch_dead_letters(self, stop: asyncio.Event) -> None:
        """Drain the dead letters now and then every `interval_s` until `stop`."""
        await self._repeat(self.drain_dead_letters, stop)

    async def watch_tasks(self, stop: asyncio.Event) -> None:
        """Go on with the walk now and then every `interval_s` until `stop`."""
        await self._repeat(self.tidy, stop)

    async def _repeat(self, duty: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await duty(stop)
            except AwsError as error:
                _report(error, "janitor.round_failed", duty=duty.__name__)
            await wait_for(stop, self.interval_s)

    async def tidy(self, stop: asyncio.Event) -> None:
        """Look at the next live tasks of the walk, and delete what the queue holds of others if it is much."""
        began_at = self.store.now()
        stretch = await self.walk.next_round()
        if stretch.begins:
            self.quota.begin_walk(began_at)
        depth = await self._depth()
        is_covered = depth is not None and covers(messages=depth.messages, seen=stretch.seen, is_whole=stretch.is_whole)
        for task in stretch.tasks:
            if stop.is_set():
                return
            self.walk.pass_by(task)
            self.quota.see(task)
            await self._look_at(task, is_covered=is_covered)
        self.walk.end_round(stretch)
        if stretch.ends:
            self.quota.end_walk()
        if depth is not None and stretch.is_whole:
            await self._sweep(surplus(messages=depth.messages, live=stretch.seen), stop)

    async def _depth(self) -> Depth | None:
        try:
            return await self.queue.depth()
        except AwsError as error:
            _report(error, "queue.not_counted")
            return None

    async def _look_at(self, task: TaskRecord, *, is_covered: bool) -> None:
        try:
            verdict = decide(task, now=self.store.now(), limits=self.limits, is_covered=is_covered)
            await self._treat(task, verdict)
        except Overtaken:
            log.debug("task.overtaken", job_id=task.task_id)
        except PermanentAwsError as error:
            # Perhaps only this task's fault: the others get their turn.
            _report(error, "task.tidying_failed", job_id=task.task_id)

    async def _sweep(self, most: int, stop: asyncio.Event) -> None:
        deleted = await Sweeper(store=self.store, queue=self.queue).sweep(most, stop)
        if deleted:
            log.warning("messages.swept", deleted=deleted, reason="their jobs have ended")

    async def drain_dead_letters(self, stop: asyncio.Event) -> None:
        """Fail the tasks of dead letters; nothing else tells their clients. A letter leaves after its task's end."""
        known = len(self.kept)
        for _ in range(self.most_letters // _BATCH):
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
        is_runnable = _is_runnable(letter) and (task is None or await self._has_request(task))
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

    async def _has_request(self, task: TaskRecord) -> bool:
        return bool((await self.store.with_request(task)).request_body)

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
