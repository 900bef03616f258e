"""Adapters whose every call waits for the test, and the world they work in."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from lib.asyncaws.consumer import Consumer
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import CallPolicy
from lib.asyncaws.table import Table
from lib.daemon.notification import Notifier
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.adapter.gate import UpstreamGate
from services.adapter.lease import Lease
from services.adapter.processing import Processor
from services.adapter.restart import Restart
from services.adapter.run import Runner
from services.adapter.silence import Silence
from services.adapter.suspicion import Suspicion
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.worker import Worker
from services.orchestrator.janitor import Janitor
from services.orchestrator.quota import Quota
from services.orchestrator.tidying import Limits
from services.orchestrator.walk import Walk
from tests.adapter.unified_api import UnifiedApi
from tests.gputask.records import NOW
from tests.properties.hours import Hours, elapse, settle
from tests.properties.sqs_hours import SqsHours
from tests.properties.turnstile import Fate, Ticket, Turnstile, WayToAws, WayUpstream

T = TypeVar("T")

# The production numbers; none of them is waited for.
LEASE_S, HEARTBEAT_S, DEADLINE_S, MAX_ATTEMPTS = 300, 100.0, 1500.0, 3
RECEIVES = 5
# A call may be under way for as long as the test likes: then its effect comes late, as after a stop of the machine.
ENDLESS = CallPolicy(total_s=1e9, read_timeout_s=1e9)
LIMITS = Limits(resend_after_s=600.0, max_age_s=86_400.0)

_names = itertools.count(1)


@dataclass(eq=False)
class Mood:
    """How the upstream takes requests at present.

    Attributes:
        awake: not set while it answers nothing.
        stuck: set when a request meets that.
        refuses: whether submissions are answered 422.
    """

    awake: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: bool = False

    def take_over(self, api: UnifiedApi) -> None:
        """Make the upstream follow this mood."""
        self.awake.set()

        async def health(request: web.Request) -> web.StreamResponse:
            await self._wait()
            return await api.say_health(request)

        async def submit(request: web.Request) -> web.StreamResponse:
            await self._wait()
            if self.refuses:
                return web.json_response({"detail": "no"}, status=422)
            return await api.accept(request)

        async def look(request: web.Request) -> web.StreamResponse:
            await self._wait()
            return await api.show(request)

        api.on_health, api.on_submit, api.on_look = health, submit, look

    async def _wait(self) -> None:
        if not self.awake.is_set():
            self.stuck.set()
            await self.awake.wait()


@dataclass(eq=False)
class Adapter:
    """One adapter's objects, put together as its process does."""

    turnstile: Turnstile
    worker: Worker
    stop: asyncio.Event
    abandon: asyncio.Event
    pool: asyncio.Task[None]

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it works on."""
        return self.worker.record().active

    async def die(self) -> None:
        """Like SIGKILL: no call that it makes from now on goes anywhere."""
        while not self.pool.done():
            self.pool.cancel()
            await settle()
        with suppress(asyncio.CancelledError):
            await self.pool


@dataclass(eq=False)
class Place:
    """A queue with its dead letters, a table, an upstream, the janitor, and adapters.

    Attributes:
        dynamodb, sqs: clients that wait for nobody.
    """

    loop: Hours
    dynamodb: Any
    sqs: SqsHours
    table_name: str
    queue_url: str
    dead_letter_url: str
    api: UnifiedApi
    client: UnifiedApiClient
    mood: Mood
    adapters: list[Adapter] = field(default_factory=list)

    def clock(self) -> float:
        return NOW + self.loop.passed_s

    @property
    def store(self) -> TaskStore:
        return TaskStore(Table(self.dynamodb, name=self.table_name, key=TABLE_KEY, policy=ENDLESS), self.clock)

    @property
    def queue(self) -> Queue:
        return self._queue_at(self.queue_url)

    @property
    def janitor(self) -> Janitor:
        dead = self._queue_at(self.dead_letter_url)
        return Janitor(
            store=self.store,
            walk=Walk(self.store),
            quota=Quota(1000),
            queue=self.queue,
            dead_letters=dead,
            limits=LIMITS,
            interval_s=60.0,
        )

    def hire(self, slots: int) -> Adapter:
        """Start one more adapter."""
        turnstile, stop, abandon = Turnstile(), asyncio.Event(), asyncio.Event()
        dynamodb: Any = WayToAws(self.dynamodb, turnstile)
        sqs: Any = WayToAws(self.sqs, turnstile)
        table = Table(dynamodb, name=self.table_name, key=TABLE_KEY, policy=ENDLESS)
        store = TaskStore(table, self.clock)
        queue = Queue(sqs, url=self.queue_url, policy=ENDLESS)
        api = WayUpstream(self.client, turnstile)
        worker = Worker(
            instance_id=f"i-{next(_names)}", table=table, notifier=Notifier(None), clock=self.clock, beat_s=60.0
        )
        restart = Restart(None)
        gate = UpstreamGate(
            api=api,
            worker=worker,
            silence=Silence(limit_s=1e9, idle_limit_s=1e9, restart=restart, clock=self.clock),
            suspicion=Suspicion(restart=restart, clock=self.clock),
            stop=stop,
            interval_s=5.0,
        )
        processor = Processor(
            store=store,
            runner=Runner(api=api, deadline_s=DEADLINE_S, poll_interval_s=2.0),
            lease=Lease(store=store, lease_s=LEASE_S, heartbeat_s=HEARTBEAT_S),
            gate=gate,
            worker=worker,
            max_attempts=MAX_ATTEMPTS,
            stop=stop,
            abandon=abandon,
        )
        consumer = Consumer(
            source=queue,
            answers=queue,
            handler=processor.handle,
            gate=gate.is_open,
            slots=slots,
            wait_s=20,
            visibility_s=LEASE_S,
        )
        adapter = Adapter(turnstile, worker, stop, abandon, self.loop.create_task(consumer.run(stop)))
        self.adapters.append(adapter)
        return adapter

    async def let_through(self, ticket: Ticket, fate: Fate) -> None:
        """Let one call have its fate, and its caller come to its next wait; or the upstream swallow it."""
        self.mood.stuck.clear()
        ticket.decided.set_result(fate)
        waits = [asyncio.create_task(event.wait()) for event in (ticket.over, self.mood.stuck)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await settle()
        self._discharge()

    async def wait(self, seconds: float) -> None:
        """Time passes, for everybody."""
        await elapse(seconds)
        await self.sqs.show_what_is_due()
        self._discharge()

    async def restart_upstream(self) -> None:
        """All its jobs are lost, and every request to it breaks."""
        self.mood.awake.set()
        await self.while_time_passes(self.api.restart())
        await self._hear_out()

    async def wake_upstream(self) -> None:
        """It answers again, and first what it was asked meanwhile."""
        self.mood.awake.set()
        await self._hear_out()

    async def while_time_passes(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what needs a clock that ticks."""
        working = asyncio.ensure_future(work)
        while not working.done():
            await elapse(0.001)
        return await working

    async def depth(self) -> int:
        """How many messages there are in both queues, those in flight included."""
        count = 0
        for url in (self.queue_url, self.dead_letter_url):
            asked = await self.sqs.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            for name in ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"):
                count += int(asked["Attributes"][name])
        return count

    async def tidy(self) -> None:
        """One round of the janitor."""
        now = asyncio.Event()
        await self.sqs.show_what_is_due()
        await self.janitor.drain_dead_letters(now)
        await self.janitor.tidy(now)

    async def close(self) -> None:
        for adapter in self.adapters:
            await adapter.die()
        await self.while_time_passes(self.api.stop())
        for url in (self.queue_url, self.dead_letter_url):
            await self.sqs.client.delete_queue(QueueUrl=url)

    def _queue_at(self, url: str) -> Queue:
        client: Any = self.sqs
        return Queue(client, url=url, policy=ENDLESS)

    async def _hear_out(self) -> None:
        for ticket in [ticket for adapter in self.adapters for ticket in adapter.turnstile.under_way]:
            await ticket.over.wait()
        await settle()
        self._discharge()

    def _discharge(self) -> None:
        for adapter in [adapter for adapter in self.adapters if adapter.pool.done()]:
            adapter.pool.result()  # an adapter ends because it was told to, never by an error
            self.adapters.remove(adapter)


async def open_place(dynamodb: Any, sqs: Any, table_name: str, api: UnifiedApi, client: UnifiedApiClient) -> Place:
    """New queues, an upstream in a good mood, and nobody at work."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Hours)
    name = f"properties-{next(_names)}"
    dead_letter_url = (await sqs.create_queue(QueueName=f"{name}-dead"))["QueueUrl"]
    asked = await sqs.get_queue_attributes(QueueUrl=dead_letter_url, AttributeNames=["QueueArn"])
    redrive = {"deadLetterTargetArn": asked["Attributes"]["QueueArn"], "maxReceiveCount": RECEIVES}
    queue_url = (await sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)}))["QueueUrl"]
    mood = Mood()
    mood.take_over(api)
    place = Place(
        loop=loop,
        dynamodb=dynamodb,
        sqs=SqsHours(sqs, lambda: NOW + loop.passed_s),
        table_name=table_name,
        queue_url=queue_url,
        dead_letter_url=dead_letter_url,
        api=api,
        client=client,
        mood=mood,
    )
    await api.start()
    return place
