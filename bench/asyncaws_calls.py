"""`python -m bench.asyncaws_calls`: the AWS calls of a POST or a GET through `lib.asyncaws`, without a server.

Reads one JSON line per window, `{"kind": "post" | "get", "clients", "seconds"}`, and answers with one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.tasks import new_record
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import REQUEST, AwsSession
from lib.asyncaws.table import Table
from lib.gputask import transitions
from lib.gputask.message import REQUEST_ID_ATTRIBUTE, TaskMessage
from lib.gputask.schema import TABLE_KEY

Step = Callable[[], Awaitable[None]]


async def _main() -> None:
    async with AwsSession(region=os.environ["AWS_REGION"], endpoint_url=os.environ["AWS_ENDPOINT_URL"]) as session:
        name, url = os.environ["DYNAMODB_TABLE"], os.environ["SQS_QUEUE_URL"]
        table = Table(await session.dynamodb(REQUEST), name=name, key=TABLE_KEY, policy=REQUEST)
        queue = Queue(await session.sqs(REQUEST), url=url, policy=REQUEST)
        known = new_record()

        async def post() -> None:
            record = new_record()
            await table.put(record.to_item(), transitions.creatable(record.created_at))
            message = TaskMessage(record.task_id, record.job_type, record.request_body)
            await queue.send(message.to_json(), {REQUEST_ID_ATTRIBUTE: record.task_id})

        async def get() -> None:
            await table.get(known.task_id)

        steps: dict[str, Step] = {"post": post, "get": get}
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            await table.put(known.to_item())
            print(json.dumps(await _window(steps[order["kind"]], order["clients"], order["seconds"])), flush=True)


async def _window(step: Step, clients: int, seconds: float) -> dict[str, Any]:
    latencies_s: list[float] = []
    started, used = time.perf_counter(), time.process_time()
    ends = started + seconds

    async def repeat() -> None:
        while (asked := time.perf_counter()) < ends:
            await step()
            latencies_s.append(time.perf_counter() - asked)

    await asyncio.gather(*(repeat() for _ in range(clients)))
    return {
        "latencies_s": latencies_s,
        "elapsed_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - used,
    }


if __name__ == "__main__":
    asyncio.run(_main())
