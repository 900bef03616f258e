"""`python -m bench.looks`: what the services do at the table by themselves, and a task's writes, without the services.

Reads one JSON line per order and answers with one: `{"look", "seconds"}` with the times and the memory that a look
takes, `{"write", "request_bytes"}` with nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import boto3

from bench.subjects import INSTANCE_ID
from bench.tasks import BODY, TABLE, new_record
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import BACKGROUND, AwsSession
from lib.asyncaws.table import Table
from lib.daemon.logs import LogFormat, configure_logging
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.orchestrator.janitor import Janitor
from services.orchestrator.quota import Quota
from services.orchestrator.tidying import Limits
from services.orchestrator.walk import Walk
from services.shutdown.observer import Observer

Step = Callable[[], Awaitable[object]]

# As the orchestrator's settings have them.
_LIMITS = Limits(resend_after_s=600, max_age_s=86_400)
_MOST_UNFINISHED = 1_000_000
_LEASE_S = 300.0


class Looks:
    """One look of each of those that look by themselves, as if it were the first of its process.

    Args:
        most_a_round: see `Walk`; None: as it is.
    """

    def __init__(self, store: TaskStore, queue: Queue, observer: Observer, *, most_a_round: int | None = None) -> None:
        self._store = store
        self._queue = queue
        self._observer = observer
        self._bound = {} if most_a_round is None else {"most_a_round": most_a_round}

    @property
    def steps(self) -> Mapping[str, Step]:
        return {"waker": self._store.has_live, "janitor": self._tidy, "Lambda": self._look_as_lambda}

    async def _tidy(self) -> None:
        janitor = Janitor(
            store=self._store,
            walk=Walk(self._store, **self._bound),
            quota=Quota(_MOST_UNFINISHED),
            queue=self._queue,
            dead_letters=self._queue,
            limits=_LIMITS,
            interval_s=60,
        )
        await janitor.tidy(asyncio.Event())

    async def _look_as_lambda(self) -> None:
        await asyncio.to_thread(lambda: self._observer.look(self._observer.describe(), time.time()))


class Life:
    """A task's writes in their order, one at a time."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._task = new_record()

    async def write(self, verb: str, request_bytes: int) -> None:
        """The next write of the task; `create` makes a new one, whose request has so many bytes."""
        await {"create": lambda: self._create(request_bytes), **self._steps}[verb]()

    async def _create(self, request_bytes: int) -> None:
        self._task = new_record(BODY[:-1] + " " * (request_bytes - len(BODY)) + BODY[-1:])
        await self._store.create(self._task)

    async def _claim(self) -> None:
        self._task = await self._store.claim(self._task.task_id, worker="bench", lease_s=_LEASE_S, max_attempts=3)

    @property
    def _steps(self) -> Mapping[str, Step]:
        store = self._store
        return {
            "resend": lambda: store.resend(self._task),
            "claim": self._claim,
            "note_upstream_job": lambda: store.note_upstream_job(self._task, "0" * 36),
            "hold": lambda: store.hold(self._task, lease_s=_LEASE_S),
            "finish": lambda: store.finish(self._task, result_s3_uri="s3://results/2026/01/picture.png"),
        }


async def _times_of(step: Step, seconds: float) -> list[float]:
    """Repeat a step for some seconds, once at least."""
    latencies_s: list[float] = []
    ends = time.perf_counter() + seconds
    while not latencies_s or time.perf_counter() < ends:
        asked = time.perf_counter()
        await step()
        latencies_s.append(time.perf_counter() - asked)
    return latencies_s


async def _peak_bytes_of(step: Step) -> int:
    """The most memory that a step holds at any moment. Watching takes several times the step's time."""
    gc.collect()
    tracemalloc.start()
    try:
        await step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def observing(*, region: str, endpoint_url: str, queue_url: str) -> Iterator[Observer]:
    """The Lambda's reader, with clients of the SDK that it has."""
    session = boto3.Session(region_name=region)
    with (
        closing(session.client("ec2", endpoint_url=endpoint_url)) as ec2,
        closing(session.client("dynamodb", endpoint_url=endpoint_url)) as dynamodb,
        closing(session.client("sqs", endpoint_url=endpoint_url)) as sqs,
    ):
        yield Observer(ec2=ec2, dynamodb=dynamodb, sqs=sqs, instance_id=INSTANCE_ID, table=TABLE, queue_url=queue_url)


async def _main() -> None:
    configure_logging("bench", form=LogFormat.JSON, level="WARNING")
    region, url, queue_url = (os.environ[name] for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "SQS_QUEUE_URL"))
    async with AwsSession(region=region, endpoint_url=url) as session:
        store = await task_store(session)
        queue = Queue(await session.sqs(BACKGROUND), url=queue_url, policy=BACKGROUND)
        with observing(region=region, endpoint_url=url, queue_url=queue_url) as observer:
            looks, life = Looks(store, queue, observer), Life(store)
            while line := await asyncio.to_thread(sys.stdin.readline):
                print(json.dumps(await _carry_out(json.loads(line), looks, life)), flush=True)


async def task_store(session: AwsSession) -> TaskStore:
    """The tasks, as the orchestrator's background sees them."""
    client = await session.dynamodb(BACKGROUND)
    return TaskStore(Table(client, name=TABLE, key=TABLE_KEY, policy=BACKGROUND), time.time)


async def _carry_out(order: Mapping[str, Any], looks: Looks, life: Life) -> Mapping[str, Any]:
    if "write" in order:
        await life.write(order["write"], order["request_bytes"])
        return {}
    step = looks.steps[order["look"]]
    return {"latencies_s": await _times_of(step, order["seconds"]), "peak_bytes": await _peak_bytes_of(step)}


if __name__ == "__main__":
    asyncio.run(_main())
