"""Holding a task: lease and visibility live exactly as long as the work and its record allow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from lib.asyncaws.consumer import Delivery
from lib.gputask.record import ErrorCode, Status, TaskRecord
from lib.gputask.store import LeaseLost
from services.adapter.lease import Lease
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from tests.adapter.waiting import until
from tests.adapter.wire import Fate, Wire
from tests.adapter.workplace import Workplace, open_adapter

BEAT_S = 0.05
LEASE_S = 3


class Work:
    """Work that hangs until it is told to end, like a request to a busy upstream."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.was_cancelled = False

    async def do(self) -> str:
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return "result"


@dataclass
class Held:
    """A claimed task with its delivery, and the work on it."""

    lease: Lease
    task: TaskRecord
    delivery: Delivery
    work: Work

    def start(self) -> asyncio.Task[str]:
        return asyncio.create_task(self.lease.during(self.task, self.delivery, self.work.do()))


Hold = Callable[..., Awaitable[Held]]


@pytest.fixture
def hold(place: Workplace, client: UnifiedApiClient) -> Hold:
    async def claim_one(*, lease_s: int = LEASE_S) -> Held:
        adapter = open_adapter(place, client, lease_s=lease_s, heartbeat_s=BEAT_S)
        task_id = await place.submit()
        [message] = await adapter.source.receive(limit=1, wait_s=10, visibility_s=lease_s)
        task = await adapter.processor.store.claim(task_id, worker="me", lease_s=lease_s, max_attempts=3)
        return Held(adapter.processor.lease, task, Delivery(message, adapter.answers), Work())

    return claim_one


async def test_the_heartbeat_extends_lease_and_visibility_while_the_work_hangs(hold: Hold, place: Workplace) -> None:
    held = await hold()
    holding = held.start()

    # The first lease and the first visibility are over: what still holds has been renewed.
    await until(lambda: time.time() > (held.task.lease_until or 0))
    assert await place.next_message(wait_s=0) is None
    record = await place.record(held.task.task_id)
    assert record.is_leased(time.time())

    held.work.finish.set()
    assert await holding == "result"


async def test_after_the_work_nothing_is_renewed(hold: Hold, place: Workplace, wire: Wire) -> None:
    held = await hold(lease_s=1)
    held.work.finish.set()
    await held.start()
    renewals = wire.count("UpdateItem")
    assert await place.next_message()
    assert wire.count("UpdateItem") == renewals
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({f"heartbeat-{held.task.task_id}"})


async def test_the_works_own_error_passes(hold: Hold) -> None:
    held = await hold()

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await held.lease.during(held.task, held.delivery, fail())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"attempt": 2, "worker": "somebody else"}, id="claimed-by-another"),
        pytest.param({"status": Status.PENDING, "lease_until": None}, id="given-back-by-somebody"),
        pytest.param({"status": Status.FAILED, "error_code": ErrorCode.RULE_B, "lease_until": None}, id="rule-b"),
        pytest.param({"status": Status.COMPLETED, "result_s3_uri": "s3://other/1.png"}, id="completed-by-another"),
    ],
)
async def test_a_task_that_is_not_ours_any_more_cancels_the_work(
    hold: Hold, place: Workplace, change: dict[str, object]
) -> None:
    held = await hold()
    holding = held.start()
    await place.overwrite(held.task.task_id, **change)
    with pytest.raises(LeaseLost):
        await holding
    assert held.work.was_cancelled


async def test_a_lost_receipt_does_not_end_the_work(hold: Hold, place: Workplace, wire: Wire) -> None:
    """Whoever gets the message finds the lease."""
    held = await hold()
    holding = held.start()
    await held.delivery.acknowledge()
    extensions = wire.count("ChangeMessageVisibility")
    await until(lambda: wire.count("ChangeMessageVisibility") > extensions + 2)
    held.work.finish.set()
    assert await holding == "result"


@pytest.mark.parametrize("fate", [Fate.UNAVAILABLE, Fate.FORBIDDEN])
async def test_a_table_that_refuses_for_a_moment_does_not_end_the_work(hold: Hold, wire: Wire, fate: Fate) -> None:
    held = await hold(lease_s=60)
    outage = wire.order("UpdateItem", fate, part="#lease_until", times=3)
    holding = held.start()
    await until(lambda: outage.met_count == 3)
    renewals = wire.count("ChangeMessageVisibility")
    await until(lambda: wire.count("ChangeMessageVisibility") > renewals)
    held.work.finish.set()
    assert await holding == "result"


async def test_a_renewal_that_hangs_does_not_end_the_work(hold: Hold, wire: Wire) -> None:
    held = await hold(lease_s=60)
    hanging = wire.order("UpdateItem", Fate.HELD_AFTER, part="#lease_until", times=1)
    holding = held.start()
    await hanging.met.wait()
    await until(lambda: wire.count("ChangeMessageVisibility") > 0)
    held.work.finish.set()
    assert await holding == "result"


async def test_a_silence_of_the_table_longer_than_the_lease_ends_the_work(hold: Hold, wire: Wire) -> None:
    held = await hold(lease_s=1)
    wire.order("UpdateItem", Fate.UNAVAILABLE)
    with pytest.raises(LeaseLost):
        await held.start()
    assert held.work.was_cancelled


async def test_a_holder_that_is_cancelled_takes_work_and_heartbeat_along(hold: Hold, wire: Wire) -> None:
    held = await hold()
    holding = held.start()
    await until(lambda: wire.count("ChangeMessageVisibility") > 0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert held.work.was_cancelled
    assert not [task for task in asyncio.all_tasks() if held.task.task_id in task.get_name()]
