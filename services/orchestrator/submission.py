"""A validated request becomes a task: record first, message second, the waker nudged."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from lib.asyncaws.errors import AwsError, TransientAwsError
from lib.asyncaws.queue import Queue
from lib.gputask.ids import derived_task_id, new_task_id
from lib.gputask.kinds import Kind
from lib.gputask.message import REQUEST_ID_ATTRIBUTE, TaskMessage
from lib.gputask.record import Status, TaskRecord
from lib.gputask.store import AlreadyExists, Overtaken, TaskStore
from services.orchestrator.errors import IdempotencyConflict, Unavailable
from services.orchestrator.meter import SILENT, Meter
from services.orchestrator.quota import Quota
from services.orchestrator.withdrawal import Withdrawals

# Together they leave the rest of the promised second to parsing, the network, and a busy processor.
_BUDGET_S = 0.65
_TAKE_BACK_S = 0.15
_RETRY_AFTER_S = 2
# A call that was given up may still arrive; after that it will not.
_IN_FLIGHT_S = 5.0

log = structlog.stdlib.get_logger(__name__)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Accepts tasks. Two AWS calls on the request path, EC2 never.

    Attributes:
        nudge: tells the waker that there is demand; must not block.
        retention_s: how long a record is kept from its creation on.
        budget_s: what both calls may take with all their retries,
        take_back_s: and what taking a record back may take after them, before that goes on in the background.
        in_flight_s: after that, a call that was given up does not arrive any more.
    """

    store: TaskStore
    queue: Queue
    nudge: Callable[[], None]
    retention_s: float
    quota: Quota
    withdrawals: Withdrawals
    budget_s: float = _BUDGET_S
    take_back_s: float = _TAKE_BACK_S
    in_flight_s: float = _IN_FLIGHT_S
    meter: Meter = SILENT

    async def submit(
        self, *, kind: Kind, body: bytes, client_id: str, idempotency_key: str | None, request_id: str
    ) -> TaskRecord:
        """Record and queue one task, or find the one that the same Idempotency-Key made before.

        Args:
            body: the JSON object as it came, already validated.

        Raises:
            IdempotencyConflict: the key was used for another request.
            TooManyUnfinished: the client must wait until some of its jobs have ended.
            Unavailable: AWS did not take it in time. No task is promised; one that was half made is taken back.
        """
        record = self._new_record(kind, body.decode(), client_id, idempotency_key, request_id)
        is_ours, is_written = True, False
        try:
            async with asyncio.timeout(self.budget_s):
                if self.quota.is_used_up(client_id) and not await self._is_known(record, idempotency_key):
                    raise self.quota.refuse()
                try:
                    await self.store.create(record)
                except AlreadyExists as found:
                    # Else the answer to our own create was lost, and it was repeated.
                    is_ours = found.record.creation == record.creation
                    if not is_ours:
                        return await self._replay(found.record, kind, record)
                is_written = True
                return await self._accept(record)
        except (AwsError, TimeoutError) as error:
            log.warning("submission.failed", error=str(error) or "timed out", job_id=record.task_id)
            if is_ours:
                await self._take_back(record, is_written=is_written)
            raise Unavailable(_RETRY_AFTER_S) from error
        except asyncio.CancelledError:
            if is_ours:
                self.withdrawals.add(record)
            raise

    async def find(self, *, kind: Kind, body: bytes, client_id: str, idempotency_key: str) -> TaskRecord | None:
        """The task that the same Idempotency-Key made for the same request before.

        Raises:
            IdempotencyConflict: the key was used for another request.
            TransientAwsError, PermanentAwsError
        """
        existing = await self.store.get(derived_task_id(client_id, idempotency_key))
        if existing is not None and not _is_same(existing, kind, body.decode()):
            raise IdempotencyConflict
        return existing

    async def _is_known(self, record: TaskRecord, idempotency_key: str | None) -> bool:
        """A repeat of what was accepted is no new job."""
        return idempotency_key is not None and await self.store.get(record.task_id) is not None

    def _new_record(
        self, kind: Kind, text: str, client_id: str, idempotency_key: str | None, request_id: str
    ) -> TaskRecord:
        now = self.store.now()
        return TaskRecord(
            task_id=new_task_id() if idempotency_key is None else derived_task_id(client_id, idempotency_key),
            status=Status.PENDING,
            job_type=kind.api_path,
            request_body=text,
            request_sha256=_fingerprint(kind, text),
            client_id=client_id,
            request_id=request_id,
            creation=secrets.token_hex(8),
            created_at=now,
            updated_at=now,
            queued_at=now,
            sends=1,
            expires_at=int(now + self.retention_s),
        )

    async def _accept(self, record: TaskRecord) -> TaskRecord:
        await self.queue.send(message_of(record), attributes_of(record))
        self.nudge()
        self.meter.accepted()
        self.quota.note_accepted(record.client_id)
        log.info("task.accepted", job_id=record.task_id, job_type=record.job_type, client_id=record.client_id)
        return record

    async def _replay(self, existing: TaskRecord, kind: Kind, record: TaskRecord) -> TaskRecord:
        if not _is_same(existing, kind, record.request_body):
            raise IdempotencyConflict
        if existing.status is Status.PENDING and existing.attempt == 0 and existing.sends == 1:
            await self._send_again(replace(existing, request_body=record.request_body))
        log.info("task.replayed", job_id=existing.task_id, status=existing.status)
        return existing

    async def _send_again(self, existing: TaskRecord) -> None:
        """The request that created it may have died before its message was sent, or may be taking it back right now.

        Announcing another send stops the taking back; the message, if it is a duplicate, finds the task claimed.
        """
        try:
            await self.store.resend(existing)
        except Overtaken:
            current = await self.store.get(existing.task_id)
            if current is None:
                raise TransientAwsError("PutItem", "Withdrawn", "the first request is being taken back") from None
            return
        await self.queue.send(message_of(existing), attributes_of(existing))
        self.nudge()

    async def _take_back(self, record: TaskRecord, *, is_written: bool) -> None:
        """What nobody was promised shall not run, and a repeated Idempotency-Key shall find a clean slate.

        If the process dies before it is done, the janitor sends the message later: done, though unpromised.
        """
        try:
            async with asyncio.timeout(self.take_back_s):
                await self.store.withdraw(record)
        except Overtaken:
            return  # another request with its key has announced a message for it
        except (AwsError, TimeoutError) as error:
            log.warning("submission.not_withdrawn", job_id=record.task_id, error=str(error) or "timed out")
            self.withdrawals.add(record)
            return
        except asyncio.CancelledError:
            self.withdrawals.add(record)
            raise
        if not is_written:
            self.withdrawals.add(record, after_s=self.in_flight_s)


def message_of(record: TaskRecord) -> str:
    """The message that carries a task."""
    return TaskMessage(record.task_id, record.job_type, record.request_body).to_json()


def attributes_of(record: TaskRecord) -> dict[str, str]:
    """What goes beside it: the request it came by. SQS refuses an empty one."""
    return {REQUEST_ID_ATTRIBUTE: record.request_id} if record.request_id else {}


def _is_same(existing: TaskRecord, kind: Kind, text: str) -> bool:
    # Records made by earlier versions have the fingerprint that told 1.0 from 1.
    return existing.request_sha256 in (_fingerprint(kind, text), _fingerprint(kind, text, read_float=float))


def _fingerprint(kind: Kind, text: str, read_float: Callable[[str], float] = _number) -> str:
    """Of what the request means: white space, the order of members and `1.0` for `1` do not make it another one."""
    canonical = json.dumps(json.loads(text, parse_float=read_float), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{kind.api_path}\n{canonical}".encode()).hexdigest()
