from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from lib.asyncaws.errors import TransientAwsError
from lib.gputask.record import TaskRecord
from lib.gputask.store import Overtaken
from services.orchestrator.withdrawal import Withdrawals
from tests.orchestrator.http_world import a_record

PATIENCE_S = 30.0


@dataclass
class Store:
    """Fails so often, then takes back."""

    failures: int = 0
    error: Exception = field(default_factory=lambda: TransientAwsError("UpdateItem", "InternalServerError", "later"))
    tries: list[TaskRecord] = field(default_factory=list)

    async def withdraw(self, record: TaskRecord) -> None:
        self.tries.append(record)
        if self.failures:
            self.failures -= 1
            raise self.error


def withdrawals_of(store: Store, *, most: int = 100) -> Withdrawals:
    return Withdrawals(store, most=most, first_pause_s=0.001)  # type: ignore[arg-type]


async def run_to_the_end(withdrawals: Withdrawals) -> None:
    finish = asyncio.Event()
    finish.set()
    async with asyncio.timeout(PATIENCE_S):
        await withdrawals.run(finish)


async def test_a_taking_back_that_fails_is_repeated_until_it_is_done() -> None:
    store = Store(failures=4)
    withdrawals = withdrawals_of(store)
    record = a_record(request_body="x" * 1000)
    withdrawals.add(record)
    await run_to_the_end(withdrawals)
    assert [tried.task_id for tried in store.tries] == [record.task_id] * 5
    assert len(withdrawals) == 0


async def test_a_record_that_another_request_has_announced_is_let_be() -> None:
    store = Store(failures=1, error=Overtaken("task"))
    withdrawals = withdrawals_of(store)
    withdrawals.add(a_record())
    await run_to_the_end(withdrawals)
    assert len(store.tries) == 1


async def test_bodies_are_not_kept_meanwhile() -> None:
    store = Store()
    withdrawals = withdrawals_of(store)
    withdrawals.add(a_record(request_body="x" * 1000))
    await run_to_the_end(withdrawals)
    assert store.tries[0].request_body == ""


async def test_so_many_may_wait_and_no_more() -> None:
    withdrawals = withdrawals_of(Store(), most=2)
    for _ in range(3):
        withdrawals.add(a_record())
    assert len(withdrawals) == 2


async def test_one_that_fails_does_not_hold_up_the_next_and_what_comes_later_is_done_too() -> None:
    store, finish = Store(failures=1), asyncio.Event()
    withdrawals = withdrawals_of(store)
    running = asyncio.create_task(withdrawals.run(finish))
    for _ in range(40):
        withdrawals.add(a_record())
        await asyncio.sleep(0)
    finish.set()
    async with asyncio.timeout(PATIENCE_S):
        await running
    assert len({tried.task_id for tried in store.tries}) == 40
