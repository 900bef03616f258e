"""What goes wrong in a soak, one thing every second or two, all from one seed."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from services.devstack.emulator.faults import Mode
from services.devstack.resources import aws_session, client_config
from services.devstack.soak.clients import Clients
from services.devstack.soak.proxy import UpstreamProxy
from services.devstack.stack import Stack

log = structlog.stdlib.get_logger(__name__)

_FREEZE_S = (0.5, 6.0)
_AWS_FAULT_S = (0.5, 3.0)
_PROXY_FAULT_S = (1.0, 5.0)
_PAUSE_S = (0.5, 2.5)

_WITH_ITS_MESSAGE = 0.7
_PATH = "/api/v1/qwen-image-edit/jobs"


def _number(value: float) -> dict[str, str]:
    return {"N": str(value)}


FOREIGN: Sequence[Callable[[int], Mapping[str, Any]]] = (
    lambda now: {"status": {"S": "processing"}, "created_at": _number(now), "updated_at": _number(now)},
    lambda now: {"status": {"S": "pending"}, "created_at": _number(now)},
    lambda now: {"status": {"S": "pending"}, "created_at": _number(now * 1000), "sends": {"S": "once"}},
    lambda now: {"status": {"S": "processing"}, "created_at": _number(now), "lease_until": {"S": "soon"}},
    lambda now: {"status": {"S": "processing"}, "created_at": _number(now), "lease_until": _number(now * 1000)},
    lambda now: {"status": {"S": "pending"}, "created_at": _number(now), "attempt": {"S": "many"}},
    lambda now: {"status": {"S": "pending"}, "created_at": _number(now), "attempt": {"BOOL": True}},
    lambda now: {"status": {"S": "pending"}, "created_at": _number(now), "attempt": _number(-1000)},
    lambda now: {"status": {"S": "pending"}, "created_at": _number(now), "attempt": _number(0.5)},
    lambda now: {"status": {"S": "pending"}, "created_at": _number(now), "client_id": {"NULL": True}},
)
"""Attributes of live records by the time, in epoch seconds: some missing, some of another type or unit."""

Mischief = Callable[[], Awaitable[None]]


class Chaos:
    """Does mischief at random, and repairs what lasts.

    Attributes:
        done: how often each kind of mischief was done.
    """

    def __init__(self, stack: Stack, *, proxy: UpstreamProxy, clients: Clients, random: Random) -> None:
        self._stack = stack
        self._proxy = proxy
        self._clients = clients
        self._random = random
        self._client = aws_session().client
        self._repairs: set[asyncio.Task[None]] = set()
        self.done: Counter[str] = Counter()

    @property
    def kinds(self) -> Mapping[str, Mischief]:
        return {
            "kill adapter": lambda: self._signal_unit("adapter", signal.SIGKILL),
            "terminate adapter": lambda: self._signal_unit("adapter", signal.SIGTERM),
            "freeze adapter": lambda: self._freeze_unit("adapter"),
            "kill upstream": lambda: self._signal_unit("upstream", signal.SIGKILL),
            "terminate upstream": lambda: self._signal_unit("upstream", signal.SIGTERM),
            "freeze upstream": lambda: self._freeze_unit("upstream"),
            "kill orchestrator": lambda: self._replace_orchestrator(signal.SIGKILL),
            "terminate orchestrator": lambda: self._replace_orchestrator(signal.SIGTERM),
            "freeze orchestrator": self._freeze_orchestrator,
            "break DynamoDB": lambda: self._break_aws("dynamodb"),
            "break SQS": lambda: self._break_aws("sqs"),
            "break EC2": lambda: self._break_aws("ec2"),
            "refuse starts": self._refuse_starts,
            "stop instance by hand": lambda: self._order_instance("stop_instances"),
            "start instance by hand": lambda: self._order_instance("start_instances"),
            "duplicate messages": self._duplicate_messages,
            "poison": self._poison,
            "foreign record": self._write_foreign_record,
            "disturb upstream": self._disturb_upstream,
        }

    async def reign(self, seconds: float) -> None:
        """Do mischief until the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        kinds = self.kinds
        while loop.time() < end:
            kind = self._random.choice(sorted(kinds))
            try:
                await kinds[kind]()
            except (ProcessLookupError, ClientError, BotoCoreError) as error:
                log.debug("mischief.came_to_nothing", kind=kind, error=str(error))
            else:
                self.done[kind] += 1
                log.info("mischief.done", kind=kind)
            await asyncio.sleep(self._random.uniform(*_PAUSE_S))

    async def repair(self) -> None:
        """End every fault that lasts. What has happened has happened."""
        if self._repairs:
            await asyncio.wait(self._repairs)
        self._proxy.probability = 0.0
        await self._stack.heal()
        if self._stack.orchestrator.pid is None:
            await self._stack.restart_orchestrator()

    async def _signal_unit(self, name: str, number: signal.Signals) -> None:
        self._stack.box.units[name].send(number)

    async def _freeze_unit(self, name: str) -> None:
        unit = self._stack.box.units[name]
        unit.send(signal.SIGSTOP)
        process = unit.process
        if process is not None:
            self._later(self._random.uniform(*_FREEZE_S), lambda: process.send(signal.SIGCONT))

    async def _freeze_orchestrator(self) -> None:
        orchestrator = self._stack.orchestrator
        orchestrator.send(signal.SIGSTOP)
        self._later(self._random.uniform(*_FREEZE_S), lambda: orchestrator.send(signal.SIGCONT))

    async def _replace_orchestrator(self, number: signal.Signals) -> None:
        self._stack.orchestrator.send(signal.SIGCONT)  # a frozen process does not hear SIGTERM
        await self._stack.kill_orchestrator(number)
        await asyncio.sleep(self._random.uniform(0.0, 1.5))
        await self._stack.restart_orchestrator()

    async def _break_aws(self, service: str) -> None:
        mode = self._random.choice(list(Mode))
        await self._stack.fail(
            service, mode, seconds=self._random.uniform(*_AWS_FAULT_S), delay_s=self._random.uniform(0.05, 0.6)
        )

    async def _refuse_starts(self) -> None:
        await self._stack.refuse("StartInstances", "InsufficientInstanceCapacity", times=self._random.randint(1, 3))

    async def _order_instance(self, order: str) -> None:
        ec2 = self._client("ec2", endpoint_url=self._stack.endpoint_url, config=client_config())
        await asyncio.to_thread(getattr(ec2, order), InstanceIds=[self._stack.resources.instance_id])

    async def _duplicate_messages(self) -> None:
        accepted = [job for job in self._clients.jobs if job.job_id is not None]
        for job in self._random.sample(accepted, min(3, len(accepted))):
            message = {"task_id": job.job_id, "api_path": _PATH, "request_body": job.body}
            await self._send(json.dumps(message), job.name)

    async def _poison(self) -> None:
        await self._send(self._random.choice(["", "{}", "null", '{"task_id": 1}', '{"task_id": "nobody"}']) or "x")

    async def _write_foreign_record(self) -> None:
        """A live task as another program, or a hand at the console, may leave it, with its message or without."""
        job = self._random.choice(self._clients.jobs) if self._clients.jobs else None
        if job is None:
            return
        task_id = str(uuid.UUID(int=self._random.getrandbits(128)))
        request = {"job_type": {"S": _PATH}, "request_body": {"S": json.dumps(job.body)}}
        dynamodb = self._client("dynamodb", endpoint_url=self._stack.endpoint_url, config=client_config())
        oddity = self._random.choice(FOREIGN)
        item: dict[str, Any] = {"task_id": {"S": task_id}, **request, **oddity(round(time.time()))}
        await asyncio.to_thread(dynamodb.put_item, TableName=self._stack.resources.table, Item=item)
        if self._random.random() < _WITH_ITS_MESSAGE:
            message = {"task_id": task_id, "api_path": _PATH, "request_body": job.body}
            await self._send(json.dumps(message))

    async def _disturb_upstream(self) -> None:
        self._proxy.probability = self._random.uniform(0.1, 0.6)
        self._later(self._random.uniform(*_PROXY_FAULT_S), lambda: setattr(self._proxy, "probability", 0.0))

    async def _send(self, body: str, request_id: str = "chaos") -> None:
        sqs = self._client("sqs", endpoint_url=self._stack.endpoint_url, config=client_config())
        attributes: Any = {"request_id": {"DataType": "String", "StringValue": request_id}}
        await asyncio.to_thread(
            sqs.send_message,
            QueueUrl=self._stack.resources.queue_url,
            MessageBody=body,
            MessageAttributes=attributes,
        )

    def _later(self, seconds: float, repair: Callable[[], None]) -> None:
        async def run() -> None:
            await asyncio.sleep(seconds)
            repair()

        task = asyncio.create_task(run())
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)
