"""`python -m bench.queue_consumers`: what it takes to empty a queue of messages nobody works on.

Reads one JSON line per run, `{"kind": "ours" | "bare", "count", "slots"}`, and answers with one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from lib.asyncaws.consumer import Consumer, Delivery
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import HEARTBEAT, AwsSession, long_poll

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import DeleteMessageBatchRequestEntryTypeDef

_WAIT_S = 1
_BARE_LOOPS = 4
_BATCH = 10

Emptying = Callable[[AwsSession, int, int], Awaitable[None]]


async def _main() -> None:
    emptying: dict[str, Emptying] = {"ours": _consume, "bare": _empty_bare}
    async with AwsSession(region=os.environ["AWS_REGION"], endpoint_url=os.environ["AWS_ENDPOINT_URL"]) as session:
        await session.sqs(HEARTBEAT)  # the first client of a process takes longest
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            started, used = time.perf_counter(), time.process_time()
            await emptying[order["kind"]](session, order["count"], order["slots"])
            answer = {"elapsed_s": time.perf_counter() - started, "cpu_s": time.process_time() - used}
            print(json.dumps(answer), flush=True)


async def _consume(session: AwsSession, count: int, slots: int) -> None:
    """The adapter's pool with a handler that does nothing."""
    url = os.environ["SQS_QUEUE_URL"]
    poll = long_poll(_WAIT_S)
    answers = Queue(await session.sqs(HEARTBEAT), url=url, policy=HEARTBEAT)
    stop, left = asyncio.Event(), count

    async def handle(delivery: Delivery) -> None:
        nonlocal left
        await delivery.acknowledge()
        left -= 1
        if left == 0:
            stop.set()

    async def gate() -> bool:
        return left > 0

    consumer = Consumer(
        source=Queue(await session.sqs(poll), url=url, policy=poll),
        answers=answers,
        handler=handle,
        gate=gate,
        slots=slots,
        wait_s=0,
        visibility_s=300,
    )
    await consumer.run(stop)


async def _empty_bare(session: AwsSession, count: int, _slots: int) -> None:
    """The cheapest honest loop: ten at a time, deleted ten at a time."""
    url = os.environ["SQS_QUEUE_URL"]
    client = await session.sqs(HEARTBEAT)
    left = count

    async def loop() -> None:
        nonlocal left
        while left > 0:
            answer = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=_BATCH)
            messages = answer.get("Messages", [])
            entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            if entries:
                await client.delete_message_batch(QueueUrl=url, Entries=entries)
                left -= len(entries)

    await asyncio.gather(*(loop() for _ in range(_BARE_LOOPS)))


if __name__ == "__main__":
    asyncio.run(_main())
