"""The calls: which operation is meant, when and how it is answered, and what the bench itself wants to know."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from bench.endpoint.capacity import Usage
from bench.endpoint.conduct import Conduct
from bench.endpoint.queue import Queue
from bench.endpoint.refusal import Refusal
from bench.endpoint.table import Table
from bench.http_server import Connection, Request

_VISIBILITY_S = 300
_JSON = "Content-Type: application/x-amz-json-1.0\r\n"
_XML = "Content-Type: text/xml\r\n"
_RUNNING = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>bench</requestId>
<reservationSet><item><reservationId>r-1</reservationId><instancesSet><item><instanceId>{instance}</instanceId>
<instanceState><code>16</code><name>running</name></instanceState><launchTime>2026-01-01T00:00:00.000Z</launchTime>
</item></instancesSet></item></reservationSet></DescribeInstancesResponse>"""

_XML_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>
<RequestID>bench</RequestID></Response>"""

# Both are of the kind every SDK repeats; AWS shows both under load.
_FAULTS = (
    Refusal(500, "InternalServerError", "Internal server error"),
    Refusal(503, "ServiceUnavailable", "Service is unavailable"),
)


class Aws:
    """Everything this endpoint knows. An effect happens at the end of a call's latency, just before its answer."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._conduct = Conduct()
        self._tasks: set[asyncio.Task[None]] = set()
        self.reset()

    def handle(self, request: Request, connection: Connection) -> None:
        """One HTTP request."""
        if request.path.startswith("/bench/"):
            self._control(request, connection)
            return
        target = request.headers.get("x-amz-target", "")
        operation = target.rpartition(".")[2] or parse_qs(request.body.decode())["Action"][0]
        self._calls[operation] += 1
        if self._conduct.is_stalled:
            return
        if self._conduct.latency_s:
            perform = partial(self._perform, operation, request, connection)
            asyncio.get_running_loop().call_later(self._conduct.latency_s, perform)
        else:
            self._perform(operation, request, connection)

    def fill(self, item: Mapping[str, Any], count: int, queue_url: str | None = None, body: str = "") -> None:
        """Put copies of a task's item into the table, created a hundredth of a second apart, the last one when it was.

        Args:
            queue_url: where the message `body` of each goes, if at all.
        """
        task_id, last = item["task_id"]["S"], float(item["created_at"]["N"])
        for number in range(count):
            copy_id = f"{number:08x}-{task_id[9:]}"
            created_at = f"{last - (count - 1 - number) / 100:.3f}"
            self._table.fill({**item, "task_id": {"S": copy_id}, "created_at": {"N": created_at}})
            if queue_url is not None:
                self._queue(queue_url).fill(body.replace(task_id, copy_id))

    @property
    def usage(self) -> Mapping[str, Usage]:
        """What the table's calls have used, by operation."""
        return self._table.usage

    def _perform(self, operation: str, request: Request, connection: Connection) -> None:
        try:
            if self._random.random() < self._conduct.error_rate:
                raise self._random.choice(_FAULTS)
            if not request.headers.get("x-amz-target"):
                self._answer_ec2(request, connection)
                return
            result = self._dispatch(operation, json.loads(request.body))
        except Refusal as refusal:
            self._refuse(refusal, request, connection)
            return
        if isinstance(result, Mapping):
            self._answer(200, result, connection)
        else:
            self._answer_later(result, connection)

    def _dispatch(self, operation: str, call: Any) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        if in_table := self._table.operations.get(operation):
            return in_table(call)
        if in_queue := self._queue(call["QueueUrl"]).operations.get(operation):
            return in_queue(call)
        raise Refusal(400, "UnknownOperationException", f"{operation} is not imitated here")

    def _queue(self, url: str) -> Queue:
        if url not in self._queues:
            self._queues[url] = Queue(_VISIBILITY_S)
        return self._queues[url]

    def _answer_ec2(self, request: Request, connection: Connection) -> None:
        call = parse_qs(request.body.decode())
        if call["Action"] != ["DescribeInstances"]:
            raise Refusal(400, "UnsupportedOperation", "only DescribeInstances is imitated here")
        connection.answer(200, _RUNNING.format(instance=call["InstanceId.1"][0]).encode(), _XML)

    def _answer_later(self, result: Awaitable[Mapping[str, Any]], connection: Connection) -> None:
        async def answer() -> None:
            self._answer(200, await result, connection)

        task = asyncio.create_task(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(self, status: int, members: Mapping[str, Any], connection: Connection) -> None:
        headers = f"{_JSON}x-amzn-RequestId: {next(self._numbers)}\r\n"
        connection.answer(status, json.dumps(members).encode(), headers)

    def _refuse(self, refusal: Refusal, request: Request, connection: Connection) -> None:
        if not request.headers.get("x-amz-target"):
            text = _XML_ERROR.format(code=refusal.code, message=refusal)
            connection.answer(refusal.status, text.encode(), _XML)
            return
        self._answer(refusal.status, {"__type": refusal.code, "message": str(refusal), **refusal.members}, connection)

    def _control(self, request: Request, connection: Connection) -> None:
        answer: Mapping[str, Any] = {}
        match request.path:
            case "/bench/conduct":
                self._conduct = Conduct(**json.loads(request.body))
            case "/bench/reset":
                gc.unfreeze()
                self.reset()
            case "/bench/fill":
                self.fill(**json.loads(request.body))
                # A hundred thousand tasks are not to be looked through for garbage while somebody waits.
                gc.collect()
                gc.freeze()
            case "/bench/books":
                answer = {
                    "calls": self._calls,
                    "completed_at": self._table.completed_at,
                    "usage": {operation: asdict(usage) for operation, usage in self.usage.items()},
                    "depths": {url: queue.depth for url, queue in self._queues.items()},
                }
        self._answer(200, answer, connection)

    def reset(self) -> None:
        """Forget all items, messages and counts."""
        self._table = Table()
        self._queues: dict[str, Queue] = {}
        self._calls: Counter[str] = Counter()
        self._random = random.Random(20)
