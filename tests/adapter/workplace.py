"""A table, a queue with its dead-letter queue, and adapters without a process that work on them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.asyncaws.consumer import Consumer, Delivery
from lib.asyncaws.queue import Message, Queue
from lib.asyncaws.session import CallPolicy
from lib.asyncaws.table import Table
from lib.daemon.notification import Notifier
from lib.gputask.ids import new_task_id
from lib.gputask.kinds import QWEN_IMAGE_EDIT
from lib.gputask.message import REQUEST_ID_ATTRIBUTE, TaskMessage
from lib.gputask.record import Status, TaskRecord
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.adapter.gate import UpstreamGate
from services.adapter.lease import Lease
from services.adapter.meter import SILENT, Meter
from services.adapter.processing import Processor
from services.adapter.restart import Restart
from services.adapter.run import Runner
from services.adapter.silence import Silence
from services.adapter.suspicion import Suspicion
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.worker import Worker

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_sqs import SQSClient

# Nothing is repeated below what is tested.
PATIENT = CallPolicy(total_s=30.0, read_timeout_s=25.0)
QUICK = CallPolicy(total_s=3.0, read_timeout_s=3.0)  # of a call that hangs; a busy machine may take a second

INSTANCE_ID = "i-0fedcba9876543210"
PROMPT = "线稿, please"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What all adapters of a test share, by way of one wire."""

    dynamodb: DynamoDBClient
    sqs: SQSClient
    table_name: str
    queue_url: str
    dead_letter_url: str

    @property
    def table(self) -> Table:
        return Table(self.dynamodb, name=self.table_name, key=TABLE_KEY, policy=PATIENT)

    @property
    def store(self) -> TaskStore:
        return TaskStore(self.table, time.time)

    @property
    def queue(self) -> Queue:
        return Queue(self.sqs, url=self.queue_url, policy=PATIENT)

    @property
    def dead_letters(self) -> Queue:
        return Queue(self.sqs, url=self.dead_letter_url, policy=PATIENT)

    async def submit(self, *, prompt: str = PROMPT, request_id: str = "request-1", **attributes: Any) -> str:
        """Record a task and send its message, as the orchestrator does; the id."""
        now = round(time.time(), 3)
        body = json.dumps({"image_url": "s3://pictures/cat.png", "prompt": prompt, "cfg": 1.0}, ensure_ascii=False)
        record = TaskRecord(
            task_id=new_task_id(),
            status=Status.PENDING,
            job_type=QWEN_IMAGE_EDIT.api_path,
            request_body=body,
            created_at=now,
            updated_at=now,
            queued_at=now,
            sends=1,
            expires_at=now + 3600,
        )
        await self.store.create(replace(record, **attributes))
        await self.send(record, request_id=request_id)
        return record.task_id

    async def send(self, record: TaskRecord, *, request_id: str = "request-1") -> None:
        """Send a message for the task: its first, or a duplicate."""
        message = TaskMessage(record.task_id, record.job_type, record.request_body)
        await self.queue.send(message.to_json(), {REQUEST_ID_ATTRIBUTE: request_id})

    async def record(self, task_id: str) -> TaskRecord:
        record = await self.store.get(task_id)
        assert record is not None
        return record

    async def overwrite(self, task_id: str, **attributes: Any) -> TaskRecord:
        """Change a record as somebody else could; None removes an attribute."""
        record = replace(await self.record(task_id), **attributes)
        await self.table.put(record.to_item())
        return record

    async def forget(self, task_id: str) -> None:
        """Delete a record, as TTL does."""
        await self.dynamodb.delete_item(TableName=self.table_name, Key={TABLE_KEY: {"S": task_id}})

    async def status(self, task_id: str) -> Status:
        return (await self.record(task_id)).status

    async def is_done(self, task_id: str) -> bool:
        return (await self.status(task_id)).is_terminal

    async def worker_record(self, instance_id: str = INSTANCE_ID) -> dict[str, Any]:
        return await self.table.get(f"worker#{instance_id}") or {}

    async def has_no_message(self) -> bool:
        """Whether the queue is empty, messages in flight included."""
        asked = await self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["All"])
        counts = asked["Attributes"]
        return counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"

    async def next_message(self, *, wait_s: int = 10, visibility_s: int = 0) -> Message | None:
        """What the next receiver would get, None if nothing within `wait_s`. With the visibility 0 it stays there."""
        messages = await self.queue.receive(limit=1, wait_s=wait_s, visibility_s=visibility_s)
        return messages[0] if messages else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter's objects, put together as its process does."""

    source: Queue
    answers: Queue
    processor: Processor
    worker: Worker
    gate: UpstreamGate

    async def take_next(self, *, wait_s: int = 10, visibility_s: int | None = None) -> None:
        """Receive one message, waiting for it, and handle it."""
        lease_s = self.processor.lease.lease_s
        messages = await self.source.receive(
            limit=1, wait_s=wait_s, visibility_s=lease_s if visibility_s is None else visibility_s
        )
        assert messages, "no message"
        await self.processor.handle(Delivery(messages[0], self.answers))

    def consumer(self, *, slots: int, handler: Callable[[Delivery], Awaitable[None]] | None = None) -> Consumer:
        return Consumer(
            source=self.source,
            answers=self.answers,
            handler=handler or self.processor.handle,
            gate=self.gate.is_open,
            slots=slots,
            wait_s=1,
            visibility_s=self.processor.lease.lease_s,
        )


def open_adapter(
    place: Workplace,
    client: UnifiedApiClient,
    *,
    lease_s: int = 60,
    heartbeat_s: float = 0.1,
    max_attempts: int = 3,
    deadline_s: float = 30.0,
    meter: Meter = SILENT,
    restart_file: Path | None = None,
) -> Adapter:
    """One more adapter for the place."""
    leases = Table(place.dynamodb, name=place.table_name, key=TABLE_KEY, policy=QUICK)
    worker = Worker(instance_id=INSTANCE_ID, table=leases, notifier=Notifier(None), clock=time.time, beat_s=0.2)
    gate = UpstreamGate(
        api=client,
        worker=worker,
        silence=patient(),
        suspicion=Suspicion(restart=Restart(restart_file), clock=time.monotonic),
        stop=asyncio.Event(),
        interval_s=0.5,
    )
    processor = Processor(
        store=place.store,
        runner=Runner(api=client, deadline_s=deadline_s, poll_interval_s=0.02),
        lease=Lease(store=TaskStore(leases, time.time), lease_s=lease_s, heartbeat_s=heartbeat_s),
        gate=gate,
        worker=worker,
        max_attempts=max_attempts,
        stop=asyncio.Event(),
        abandon=asyncio.Event(),
        meter=meter,
    )
    return Adapter(
        source=place.queue,
        answers=Queue(place.sqs, url=place.queue_url, policy=QUICK),
        processor=processor,
        worker=worker,
        gate=gate,
    )


def patient() -> Silence:
    """Silence that nobody minds."""
    return Silence(limit_s=1e9, idle_limit_s=1e9, restart=Restart(None), clock=time.monotonic)


def trustful() -> Suspicion:
    """What has no long row behind it."""
    return Suspicion(restart=Restart(None), clock=time.monotonic)
