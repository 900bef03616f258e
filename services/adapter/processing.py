"""From a message to a finished record: claim, hold, run, publish, acknowledge last."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from lib.asyncaws.consumer import Delivery, Unserviceable
from lib.asyncaws.errors import AuthenticationAwsError, AwsError, PermanentAwsError, TransientAwsError
from lib.gputask.kinds import KINDS_BY_PATH
from lib.gputask.message import REQUEST_ID_ATTRIBUTE, PoisonMessage, TaskMessage
from lib.gputask.record import ErrorCode, TaskRecord
from lib.gputask.store import LeaseLost, NotClaimable, Overtaken, TaskStore
from services.adapter.gate import UpstreamGate
from services.adapter.lease import Lease
from services.adapter.meter import SILENT, Meter
from services.adapter.refusal import Claimable, Exhausted, HeldElsewhere, Obsolete, Unknown, decide
from services.adapter.retrying import retrying
from services.adapter.run import Completed, Failed, GivenBack, Outcome, Runner
from services.adapter.worker import Worker

_FIRST_RETRY_S = 5
_LAST_RETRY_S = 300
_REFUSED_CONTENT = "ValidationException"
# What may pass before a lease ends; the work that a write tells of has been paid for.
_MOMENTARY = (TransientAwsError, AuthenticationAwsError)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Handles one delivery from start to end. If the process dies anywhere in between, the message comes again and the
    record says how far it got.

    Attributes:
        stop: set when the adapter is to stop.
        abandon: set when a stop cannot wait any longer; what is unfinished is given back.
        claim_numbers: make each claim's worker name unique. Two slots may claim duplicates of one message in the same
            millisecond, and a claim whose answer was lost knows its effect by name and time.
    """

    store: TaskStore
    runner: Runner
    lease: Lease
    gate: UpstreamGate
    worker: Worker
    max_attempts: int
    stop: asyncio.Event
    abandon: asyncio.Event
    meter: Meter = SILENT
    claim_numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def handle(self, delivery: Delivery) -> None:
        """The handler of the consumer pool."""
        try:
            message = _parse(delivery)
        except PoisonMessage as error:
            # Seen again at once, it soon reaches the dead-letter queue, whose drainer tells the client.
            log.warning("message.poisonous", message_id=delivery.message.id, error=str(error))
            await delivery.hand_back()
            return
        request_id = delivery.message.attributes.get(REQUEST_ID_ATTRIBUTE, message.task_id)
        with structlog.contextvars.bound_contextvars(job_id=message.task_id, request_id=request_id):
            await self._handle(message, delivery, request_id)

    async def _handle(self, message: TaskMessage, delivery: Delivery, request_id: str) -> None:
        if not await self.gate.is_still_open():
            log.warning("task.not_taken", reason="the Unified API is not healthy")
            await delivery.hand_back(delay_s=_retry_delay_s(delivery))
            return
        try:
            task = await self._claim(message)
        except NotClaimable as refusal:
            await self._decline(message.task_id, refusal.record, delivery)
        except TransientAwsError as error:
            log.warning("claim.failed", error=str(error))
            await delivery.hand_back(delay_s=_retry_delay_s(delivery))
        except PermanentAwsError as error:
            if error.code != _REFUSED_CONTENT:
                raise Unserviceable from error
            # The fault of this record alone: the others get their turn, and the dead-letter queue gets this one.
            log.error("claim.failed", error=str(error))  # noqa: TRY400  no bug of ours
            await delivery.hand_back(delay_s=_retry_delay_s(delivery))
        else:
            await self._work(task, message, delivery, request_id)

    async def _claim(self, message: TaskMessage) -> TaskRecord:
        worker = f"{self.worker.name}/{next(self.claim_numbers)}"
        return await retrying(
            lambda: self.store.claim(
                message.task_id, worker=worker, lease_s=self.lease.lease_s, max_attempts=self.max_attempts
            ),
            on=AuthenticationAwsError,
            within_s=self.lease.lease_s,
            until=self.stop,  # nothing is lost by then, and systemd kills who does not end
        )

    async def _decline(self, task_id: str, task: TaskRecord | None, delivery: Delivery) -> None:
        match decide(task, now=self.store.now(), max_attempts=self.max_attempts):
            case Obsolete():
                log.info("message.obsolete", status=task.status if task else None)
                delivery.vacate()  # there may be many, one after the other
                await delivery.acknowledge()
                self.worker.note_service()
            case Unknown():
                log.error("message.of_unknown_task", receives=delivery.message.receive_count)
                await delivery.hand_back(delay_s=_retry_delay_s(delivery))
            case HeldElsewhere(lease_left_s):
                log.info("task.held_elsewhere", worker=task.worker if task else None, lease_left_s=lease_left_s)
                await delivery.hand_back(delay_s=lease_left_s)
            case Claimable():
                log.warning("claim.refused", attempt=task.attempt if task else None)
                await delivery.hand_back(delay_s=_retry_delay_s(delivery))
            case Exhausted() as exhausted:
                await self._give_up(task_id, exhausted, delivery)

    async def _give_up(self, task_id: str, exhausted: Exhausted, delivery: Delivery) -> None:
        try:
            await self.store.give_up(task_id, code=exhausted.code, message=exhausted.message)
        except Overtaken:
            await delivery.hand_back(delay_s=_retry_delay_s(delivery))
            return
        self.meter.given_up(exhausted.code)
        log.error("task.failed", error_code=exhausted.code, error=exhausted.message)
        await delivery.acknowledge()

    async def _work(self, task: TaskRecord, message: TaskMessage, delivery: Delivery, request_id: str) -> None:
        self.meter.claimed(task, self.store.now())
        log.info("task.claimed", attempt=task.attempt, waited_s=round(self.store.now() - task.created_at, 1))
        with self.worker.working_on(task):
            try:
                outcome = await self.lease.during(task, delivery, self._run(task, message, request_id))
                outcome = self._excused(task, self._weighed(task, message, outcome))
                delivery.vacate()
                await self._publish(task, outcome)
            except LeaseLost:
                # The message is left alone: whoever gets it next finds in the record what to do.
                log.warning("task.lease_lost", attempt=task.attempt)
                return
        await self._answer(delivery, outcome)
        _say(task, outcome, run_s=round(self.store.now() - (task.claimed_at or 0), 2))

    async def _run(self, task: TaskRecord, message: TaskMessage, request_id: str) -> Outcome:
        """The runner's outcome, or the task given back when a stop cannot wait for it."""

        async def note(comfy_job_id: str) -> None:
            # A run that a stop gives back without its id would be repeated by whoever comes next.
            await _to_its_end(self._persist(lambda: self.store.note_upstream_job(task, comfy_job_id)))

        running = asyncio.create_task(self.runner.run(task, message, note, request_id=request_id))
        abandoned = asyncio.create_task(self.abandon.wait())
        try:
            await asyncio.wait({running, abandoned}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            return GivenBack("the adapter stops", keep_upstream_job=True)
        finally:
            for child in (running, abandoned):
                child.cancel()
            await asyncio.gather(running, abandoned, return_exceptions=True)

    def _weighed(self, task: TaskRecord, message: TaskMessage, outcome: Outcome) -> Outcome:
        """Tell the gate how the job ended, and be told what else a failure may mean."""
        match outcome:
            case Completed():
                self.gate.note_success()
            case Failed(ErrorCode.UPSTREAM_FAILED, text, blames_upstream=False, may_go_on=False):
                return replace(outcome, blames_upstream=self.gate.doubts(text, message.request_body))
            case GivenBack(is_refusal=True):
                # No input is at fault here, so each claim counts.
                self.gate.doubts(outcome.reason, f"{task.task_id} {task.attempt}")
        return outcome

    def _excused(self, task: TaskRecord, outcome: Outcome) -> Outcome:
        """A job is not blamed for its upstream, nor for a stop: ComfyUI is told to stop, too."""
        if isinstance(outcome, GivenBack) and not outcome.is_attempt:
            return replace(outcome, delay_s=min(outcome.delay_s << min(task.spared, 10), _LAST_RETRY_S))
        if not isinstance(outcome, Failed) or outcome.may_go_on or task.attempts_used >= self.max_attempts:
            return outcome
        if outcome.blames_upstream:
            reason = f"it failed with its upstream: {outcome.message}"
            return GivenBack(reason, keep_upstream_job=False, delay_s=_FIRST_RETRY_S)
        if self.stop.is_set() and outcome.code is ErrorCode.UPSTREAM_FAILED:
            return GivenBack(f"it failed during a stop: {outcome.message}", keep_upstream_job=False)
        return outcome

    async def _publish(self, task: TaskRecord, outcome: Outcome) -> None:
        match outcome:
            case Completed(result_s3_uri):
                await self._persist(lambda: self.store.finish(task, result_s3_uri=result_s3_uri))
                self.meter.completed(task, self.store.now())
            case Failed(code, text):
                await self._persist(lambda: self.store.fail(task, code=code, message=text))
                self.meter.failed(task, code, self.store.now())
            case GivenBack():
                keep, spare = outcome.keep_upstream_job, not outcome.is_attempt
                await self._persist(lambda: self.store.release(task, keep_upstream_job=keep, spare=spare))

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Repeat a write as long as the lease can still hold: what it says has cost GPU time."""
        await retrying(write, on=_MOMENTARY, within_s=self.lease.lease_s, until=self.abandon)

    async def _answer(self, delivery: Delivery, outcome: Outcome) -> None:
        """If this fails the message comes again and its record, being finished, sends it away."""
        try:
            if isinstance(outcome, GivenBack):
                await delivery.hand_back(delay_s=outcome.delay_s)
            else:
                await delivery.acknowledge()
        except AwsError as error:
            log.warning("message.not_answered", error=str(error))


async def _to_its_end(write: Coroutine[Any, Any, None]) -> None:
    """Write even if cancelled meanwhile, and be cancelled after that."""
    writing = asyncio.create_task(write)
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.gather(writing, return_exceptions=True)
        raise


def _retry_delay_s(delivery: Delivery) -> int:
    """Longer each time, for the queue counts receives: after its tenth a message is dead, and its task fails.

    So a table that is throttled for a quarter of an hour buries no task.
    """
    doublings = min(delivery.message.receive_count - 1, 10)
    return min(_FIRST_RETRY_S << doublings, _LAST_RETRY_S)


def _parse(delivery: Delivery) -> TaskMessage:
    message = TaskMessage.from_json(delivery.message.body)
    if message.api_path not in KINDS_BY_PATH:
        raise PoisonMessage("api_path is none of ours")
    return message


def _say(task: TaskRecord, outcome: Outcome, *, run_s: float) -> None:
    """The canonical line of an attempt."""
    match outcome:
        case Completed(result_s3_uri):
            log.info("task.completed", attempt=task.attempt, run_s=run_s, result_s3_uri=result_s3_uri)
        case Failed(code, text):
            log.error("task.failed", attempt=task.attempt, run_s=run_s, error_code=code, error=text)
        case GivenBack():
            log.warning("task.released", attempt=task.attempt, run_s=run_s, reason=outcome.reason)
