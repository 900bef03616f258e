"""What the orchestrator's insides work on: emulated AWS that can be told to fail, and time that a test moves."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import aiohttp

from lib.asyncaws.instance import Instance
from lib.asyncaws.queue import Message, Queue
from lib.asyncaws.session import BACKGROUND, CONTROL, AwsSession, CallPolicy
from lib.asyncaws.table import Table
from lib.gputask.kinds import CAMERA_ANGLE
from lib.gputask.message import TaskMessage
from lib.gputask.record import Status, TaskRecord
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.devstack.emulator.client import Calls, EmulatorClient
from services.devstack.emulator.faults import Fault, Mode

if TYPE_CHECKING:
    from types_aiobotocore_ec2 import EC2Client
    from types_aiobotocore_sqs import SQSClient

BODY = b'{"image_url": "s3://pictures/cat.png",  "zoom": 1.0, "prompt": "\xe7\xba\xbf\xe7\xa8\xbf \xf0\x9f\x8e\xa8"}'
LARGE_BODY = BODY.replace(b"\xe7\xba\xbf", b"\xe7\xba\xbf" * 1_000)
OTHER_BODY = b'{"image_url": "s3://pictures/dog.png"}'


class SharedClients(AwsSession):
    """Opens one client per service and policy, whoever asks: opening takes longer than most calls."""

    def __init__(self, *, region: str, endpoint_url: str) -> None:
        super().__init__(region=region, endpoint_url=endpoint_url)
        self._opened: dict[tuple[str, CallPolicy], Any] = {}

    async def _open(self, service: Any, policy: CallPolicy) -> Any:
        if (service, policy) not in self._opened:
            self._opened[service, policy] = await super()._open(service, policy)
        return self._opened[service, policy]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.clear()
        await super().__aexit__(kind, error, trace)


class Clock:
    """Epoch seconds that pass only when a test says so, or a little with each look."""

    def __init__(self, *, tick_s: float = 0.0) -> None:
        self.now = round(time.time(), 3)
        self._tick_s = tick_s

    def __call__(self) -> float:
        self.advance(self._tick_s)
        return self.now

    def advance(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 3)


async def eventually(condition: Callable[[], Awaitable[bool]], *, limit_s: float = 15.0) -> None:
    """Wait for something that nothing announces."""
    give_up_at_s = time.monotonic() + limit_s
    while not await condition():
        assert time.monotonic() < give_up_at_s, f"not within {limit_s} s"
        await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsWorld:
    """One orchestrator's table and queues, empty."""

    endpoint_url: str
    emulator: EmulatorClient
    clock: Clock
    sqs: SQSClient
    table_name: str
    queue_url: str
    dead_letter_queue_url: str
    tasks: TaskStore
    table: Table
    queue: Queue
    dead_letters: Queue

    async def fail(self, service: str, mode: Mode, action: str | None = None, **options: Any) -> None:
        """Order a failure; it lasts until `mend`, or for as many `times`."""
        await self.emulator.order(Fault(service=service, mode=mode, action=action, **options))

    async def mend(self) -> None:
        await self.emulator.clear_faults()

    async def calls(self) -> CallsSince:
        """Counts calls from now on."""
        return CallsSince(self.emulator, await self.emulator.calls())

    async def add_task(self, **attributes: Any) -> TaskRecord:
        """Write a task as a submission would have left it just now."""
        task_id = str(attributes.pop("task_id", uuid.uuid4()))
        now = self.tasks.now()
        defaults: dict[str, Any] = {
            "status": Status.PENDING,
            "job_type": CAMERA_ANGLE.api_path,
            "request_body": BODY.decode(),
            "client_id": "anonymous",
            "created_at": now,
            "updated_at": now,
            "queued_at": now,
            "sends": 1,
        }
        record = TaskRecord(task_id=task_id, **(defaults | attributes))
        await self.tasks.create(record)
        return record

    async def messages(self) -> list[Message]:
        """Take all messages that wait in the queue."""
        taken: list[Message] = []
        while batch := await self.queue.receive(limit=10, wait_s=0, visibility_s=600):
            taken += batch
        return taken

    async def messages_of(self, task: TaskRecord) -> int:
        """How many of the waiting messages carry the task."""
        return [TaskMessage.from_json(message.body).task_id for message in await self.messages()].count(task.task_id)

    async def dead_letter_count(self) -> int:
        name = self.dead_letter_queue_url.rpartition("/")[2]
        depth = (await self.emulator.queues())[name]
        return depth.visible + depth.in_flight


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """An instance, stopped at first, and what EC2 remembers of it."""

    emulator: EmulatorClient
    client: EC2Client
    instance: Instance

    @property
    def id(self) -> str:
        return self.instance.id

    async def is_in(self, *states: str) -> bool:
        return (await self.emulator.instance(self.id)).state.value in states

    async def reach(self, *states: str) -> None:
        await eventually(lambda: self.is_in(*states))

    async def launches(self) -> int:
        """How often it has been started."""
        view = await self.emulator.instance(self.id)
        return [interval.state.value for interval in view.intervals].count("pending")

    async def start(self) -> None:
        """Start it by hand, and wait until it runs."""
        await self.client.start_instances(InstanceIds=[self.id])
        await self.reach("running")

    async def begin_stop(self) -> None:
        """Tell the running instance to stop: it is stopping until `halt`."""
        await self.client.stop_instances(InstanceIds=[self.id])
        assert await self.is_in("stopping")

    async def halt(self) -> None:
        """The machine has shut down."""
        await self.emulator.report_halted(self.id)


class CallsSince:
    """The calls AWS got since a moment."""

    def __init__(self, emulator: EmulatorClient, before: Calls) -> None:
        self._emulator = emulator
        self._before = before

    async def count(self, service: str, action: str | None = None) -> int:
        return (await self._emulator.calls()).count(service, action) - self._before.count(service, action)

    async def all(self) -> dict[str, int]:
        """Action to count, those that were not called left out."""
        now = (await self._emulator.calls()).attempted
        counts = {
            action: count - self._before.count(service, action)
            for service, actions in now.items()
            for action, count in actions.items()
        }
        return {action: count for action, count in counts.items() if count}

    async def reach(self, service: str, action: str, count: int) -> None:
        """Wait until an action was called that often."""

        async def is_reached() -> bool:
            return await self.count(service, action) >= count

        await eventually(is_reached)


async def new_world(
    aws: AwsSession, emulator: EmulatorClient, *, endpoint_url: str, table_name: str, queue_url: str
) -> AwsWorld:
    """Adds to a table and a queue what else there is."""
    clock = Clock()
    sqs = await aws.sqs(BACKGROUND)
    dynamodb = await aws.dynamodb(BACKGROUND)
    dead_letter_queue_url = (await sqs.create_queue(QueueName=f"dead-{uuid.uuid4()}"))["QueueUrl"]
    await _redrive(sqs, queue_url, dead_letter_queue_url)
    table = Table(dynamodb, name=table_name, key=TABLE_KEY, policy=BACKGROUND)
    return AwsWorld(
        endpoint_url=endpoint_url,
        emulator=emulator,
        clock=clock,
        sqs=sqs,
        table_name=table_name,
        queue_url=queue_url,
        dead_letter_queue_url=dead_letter_queue_url,
        tasks=TaskStore(table, clock),
        table=table,
        queue=Queue(sqs, url=queue_url, policy=BACKGROUND),
        dead_letters=Queue(sqs, url=dead_letter_queue_url, policy=BACKGROUND),
    )


async def _redrive(sqs: SQSClient, queue_url: str, dead_letter_queue_url: str) -> None:
    answer = await sqs.get_queue_attributes(QueueUrl=dead_letter_queue_url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": answer["Attributes"]["QueueArn"], "maxReceiveCount": 2}
    await sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy)})


async def new_gpu(aws: AwsSession, emulator: EmulatorClient, *, endpoint_url: str) -> Gpu:
    """An instance that has been stopped for ever."""
    ec2 = await aws.ec2(CONTROL)
    reservation = await ec2.run_instances(ImageId="ami-1234abcd", MinCount=1, MaxCount=1)
    instance_id = reservation["Instances"][0]["InstanceId"]
    rest = f"{endpoint_url}/devstack/instances/{instance_id}/rest"
    async with aiohttp.ClientSession(raise_for_status=True) as http, http.post(rest):
        pass
    return Gpu(emulator=emulator, client=ec2, instance=Instance(client=ec2, id=instance_id, policy=CONTROL))
