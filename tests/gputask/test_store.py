from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lib.asyncaws.conditions import Equals
from lib.asyncaws.errors import ConditionFailed, PermanentAwsError
from lib.asyncaws.session import BACKGROUND, AwsSession, CallPolicy
from lib.asyncaws.table import Table
from lib.gputask.gpu import UpstreamHealth, WorkerRecord, worker_key
from lib.gputask.record import ErrorCode, Status, TaskRecord
from lib.gputask.schema import STATUS_INDEX
from lib.gputask.store import MOST_INLINE_BYTES, AlreadyExists, LeaseLost, NotClaimable, Overtaken, TaskStore
from tests.asyncaws.unreliable import DENIED, Fate, Refusal, UnreliableAws, unreliable_aws
from tests.conftest import REGION
from tests.gputask.records import NOW, live_tasks, record_of

pytestmark = pytest.mark.emulators("moto", "ministack")

LEASE_S = 300.0
TWICE = CallPolicy(total_s=60.0, read_timeout_s=30.0, attempts=2)


@dataclass(slots=True)
class Clock:
    """Stands still until it is set."""

    at: float = NOW

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(aws: AwsSession, task_table: str, clock: Clock) -> TaskStore:
    table = Table(await aws.dynamodb(BACKGROUND), name=task_table, key="task_id", policy=BACKGROUND)
    return TaskStore(table, clock)


@pytest.fixture
async def wire(aws_endpoint: str) -> AsyncIterator[UnreliableAws]:
    async with unreliable_aws(aws_endpoint) as server:
        yield server


@pytest.fixture
async def shaky_store(
    wire: UnreliableAws, aws_environment: None, task_table: str, clock: Clock
) -> AsyncIterator[TaskStore]:
    """The same table over a bad wire, with one retry."""
    async with AwsSession(region=REGION, endpoint_url=wire.url) as session:
        table = Table(await session.dynamodb(TWICE), name=task_table, key="task_id", policy=TWICE)
        yield TaskStore(table, clock)


async def created(store: TaskStore, **attributes: Any) -> TaskRecord:
    record = record_of(**attributes)
    await store.create(record)
    return record


async def claimed(store: TaskStore, *, worker: str = "i-1", **attributes: Any) -> TaskRecord:
    record = await created(store, **attributes)
    return await claim(store, record.task_id, worker=worker)


async def claim(store: TaskStore, task_id: str = "t", *, worker: str = "i-1") -> TaskRecord:
    return await store.claim(task_id, worker=worker, lease_s=LEASE_S, max_attempts=3)


async def current(store: TaskStore) -> TaskRecord:
    record = await store.get("t")
    assert record is not None
    return record


async def test_a_task_is_read_as_it_was_created(store: TaskStore) -> None:
    record = await created(store, client_id="web", request_sha256="abc")
    assert await store.get("t") == record


@pytest.mark.parametrize(("size", "rides_along"), [(MOST_INLINE_BYTES, True), (MOST_INLINE_BYTES + 1, False)])
async def test_a_large_request_is_an_item_of_its_own(store: TaskStore, size: int, rides_along: bool) -> None:
    body = '"' + "x" * (size - 2) + '"'
    record = await created(store, request_body=body, request_sha256="abc")
    read = await current(store)
    assert read == (record if rides_along else replace(record, request_body=""))
    assert await store.with_request(read) == record
    task = await claim(store)
    assert task.request_body == read.request_body
    request = await store.table.get("request#t#abc")
    expected = {"task_id": "request#t#abc", "request_body": body, "expires_at": record.expires_at}
    assert request == (None if rides_along else expected)


async def test_another_request_by_the_same_id_leaves_the_first_ones_request_alone(store: TaskStore) -> None:
    record = await created(store, request_body="x" * 2_000, request_sha256="abc")
    with pytest.raises(AlreadyExists):
        await created(store, request_body="y" * 2_000, request_sha256="def")
    assert await store.with_request(await current(store)) == record


async def test_a_request_that_is_lost_is_empty(store: TaskStore) -> None:
    await created(store, request_body="x" * 2_000, request_sha256="abc")
    await store.table.delete("request#t#abc", Equals("request_body", "x" * 2_000))
    assert (await store.with_request(await current(store))).request_body == ""


async def test_an_unknown_task_is_none(store: TaskStore) -> None:
    assert await store.get("t") is None


async def test_an_expired_task_is_none_although_it_is_still_there(store: TaskStore, clock: Clock) -> None:
    await created(store, expires_at=int(NOW) + 10)
    clock.at = NOW + 9.999
    assert await store.get("t") is not None
    clock.at = NOW + 10
    assert await store.get("t") is None
    assert await store.table.get("t") is not None


async def test_what_is_not_a_task_is_none(store: TaskStore) -> None:
    beat = WorkerRecord(instance_id="i-1", started_at=1, beat_at=1, upstream=UpstreamHealth.HEALTHY)
    await store.table.update(worker_key("i-1"), beat.to_change())
    assert await store.get("worker#i-1") is None
    with pytest.raises(NotClaimable) as refusal:
        await claim(store, "worker#i-1")
    assert refusal.value.record is None


async def test_times_are_whole_milliseconds(store: TaskStore, clock: Clock) -> None:
    clock.at = 1_700_000_000.123_456
    assert store.now() == 1_700_000_000.123


async def test_an_id_is_given_once(store: TaskStore) -> None:
    first = await created(store)
    with pytest.raises(AlreadyExists) as refusal:
        await created(store, request_body="{}", created_at=NOW + 1)
    assert refusal.value.record == first
    assert await store.get("t") == first


async def test_the_id_of_an_expired_task_is_free_again(store: TaskStore, clock: Clock) -> None:
    await created(store, expires_at=int(NOW) + 10, status=Status.COMPLETED, result_s3_uri="s3://b/old")
    clock.at = NOW + 10
    second = await created(store, created_at=NOW + 10)
    assert await store.get("t") == second


async def test_a_create_whose_answer_was_lost_finds_its_own_record(shaky_store: TaskStore, wire: UnreliableAws) -> None:
    wire.fates.append(Fate.DONE_BUT_NOT_ANSWERED)
    with pytest.raises(AlreadyExists) as refusal:
        await created(shaky_store)
    assert refusal.value.record == record_of()
    assert wire.calls == ["PutItem", "PutItem"]


async def test_a_create_that_aws_refuses_is_an_error_of_aws(shaky_store: TaskStore, wire: UnreliableAws) -> None:
    wire.fates.append(DENIED)
    with pytest.raises(PermanentAwsError):
        await created(shaky_store)


async def test_a_create_refused_without_a_record_to_show_is_not_guessed_at(
    shaky_store: TaskStore, wire: UnreliableAws
) -> None:
    wire.fates.append(Refusal(400, "ConditionalCheckFailedException"))
    with pytest.raises(ConditionFailed):
        await created(shaky_store)


async def test_a_withdrawn_task_is_gone(store: TaskStore) -> None:
    record = await created(store)
    await store.withdraw(record)
    assert await store.get("t") is None
    assert await live_tasks(store) == []
    with pytest.raises(NotClaimable) as refusal:
        await claim(store)
    assert refusal.value.record is not None
    assert refusal.value.record.is_withdrawn
    assert await created(store) == await store.get("t")


async def test_what_was_withdrawn_is_no_activity(store: TaskStore) -> None:
    record = await created(store)
    await store.withdraw(record)
    failed = [item async for item in store.table.query(STATUS_INDEX, attribute="status", value="failed")]
    assert failed == []


@pytest.mark.parametrize(
    "touch",
    [
        lambda store, record: claim(store),
        lambda store, record: store.resend(record),
        lambda store, record: store.give_up("t", code=ErrorCode.EXPIRED, message="too old"),
    ],
    ids=["claimed", "resent", "given up"],
)
async def test_a_task_that_somebody_touched_is_not_withdrawn(
    store: TaskStore, touch: Callable[[TaskStore, TaskRecord], Awaitable[Any]]
) -> None:
    record = await created(store)
    await touch(store, record)
    with pytest.raises(Overtaken):
        await store.withdraw(record)
    assert await store.get("t") is not None


async def test_a_withdrawal_whose_answer_was_lost_has_happened(shaky_store: TaskStore, wire: UnreliableAws) -> None:
    record = await created(shaky_store)
    wire.fates.append(Fate.DONE_BUT_NOT_ANSWERED)
    await shaky_store.withdraw(record)
    assert wire.calls == ["PutItem", "UpdateItem", "UpdateItem"]
    assert await shaky_store.get("t") is None


async def test_a_claim_takes_the_task(store: TaskStore, clock: Clock) -> None:
    record = await created(store)
    clock.at = NOW + 5
    task = await claim(store)
    assert task == replace(
        record,
        status=Status.PROCESSING,
        attempt=1,
        worker="i-1",
        claimed_at=NOW + 5,
        lease_until=NOW + 5 + LEASE_S,
        updated_at=NOW + 5,
    )
    assert await store.get("t") == task


async def test_a_leased_task_is_not_claimable(store: TaskStore, clock: Clock) -> None:
    task = await claimed(store)
    clock.at = NOW + LEASE_S - 0.001
    with pytest.raises(NotClaimable) as refusal:
        await claim(store, worker="i-2")
    assert refusal.value.record == task
    assert "t is processing" in str(refusal.value)


async def test_a_task_whose_worker_went_silent_is_claimed_by_the_next(store: TaskStore, clock: Clock) -> None:
    first = await claimed(store)
    await store.note_upstream_job(first, "c-1")
    clock.at = NOW + LEASE_S
    second = await claim(store, worker="i-2")
    assert (second.attempt, second.worker, second.comfy_job_id) == (2, "i-2", "c-1")


@pytest.mark.parametrize(("odd", "attempt"), [(-1000, 1), (-0.5, 1), (0.5, 1), (1.5, 2)])
async def test_an_attempt_that_was_no_count_is_one_from_the_claim_on(
    store: TaskStore, odd: float, attempt: int
) -> None:
    await store.table.put({**record_of().to_item(), "attempt": odd})
    task = await claim(store)
    assert (task.attempt, (await current(store)).attempt) == (attempt, attempt)
    await store.hold(task, lease_s=LEASE_S)
    await store.finish(task, result_s3_uri="s3://b/k")
    assert (await current(store)).status is Status.COMPLETED


async def test_a_task_out_of_attempts_is_not_claimable(store: TaskStore) -> None:
    await created(store, attempt=3)
    with pytest.raises(NotClaimable) as refusal:
        await claim(store)
    assert refusal.value.record == record_of(attempt=3)


async def test_a_task_nobody_knows_is_not_claimable(store: TaskStore) -> None:
    with pytest.raises(NotClaimable, match="no such task") as refusal:
        await claim(store)
    assert refusal.value.record is None


async def test_a_claim_whose_answer_was_lost_holds(shaky_store: TaskStore, wire: UnreliableAws) -> None:
    await created(shaky_store)
    wire.fates.append(Fate.DONE_BUT_NOT_ANSWERED)
    task = await claim(shaky_store)
    assert (task.status, task.attempt, task.worker) == (Status.PROCESSING, 1, "i-1")
    assert wire.calls == ["PutItem", "UpdateItem", "UpdateItem"]
    await shaky_store.hold(task, lease_s=LEASE_S)


async def test_a_finished_task_is_not_taken_for_a_claim_of_the_same_moment(store: TaskStore) -> None:
    """Worker and time of the claim are what a retry would find; the lease is gone, though."""
    task = await claimed(store)
    await store.fail(task, code=ErrorCode.UPSTREAM_FAILED, message="no")
    with pytest.raises(NotClaimable) as refusal:
        await claim(store)
    assert refusal.value.record is not None
    assert refusal.value.record.status is Status.FAILED


async def test_another_workers_claim_of_the_same_moment_is_not_ours(store: TaskStore) -> None:
    await claimed(store, worker="i-1")
    with pytest.raises(NotClaimable):
        await claim(store, worker="i-2")


async def test_a_hold_renews_the_lease(store: TaskStore, clock: Clock) -> None:
    task = await claimed(store)
    clock.at = NOW + 100
    await store.hold(task, lease_s=LEASE_S)
    assert (await current(store)).lease_until == NOW + 100 + LEASE_S


async def test_the_run_upstream_is_remembered(store: TaskStore) -> None:
    task = await claimed(store)
    await store.note_upstream_job(task, "c-1")
    assert (await current(store)).comfy_job_id == "c-1"


async def test_a_finished_task_has_its_result(store: TaskStore, clock: Clock) -> None:
    task = await claimed(store)
    clock.at = NOW + 7
    await store.finish(task, result_s3_uri="s3://b/k")
    record = await current(store)
    assert (record.status, record.result_s3_uri, record.finished_at) == (Status.COMPLETED, "s3://b/k", NOW + 7)
    assert record.lease_until is None


async def test_a_failed_task_has_its_cause(store: TaskStore) -> None:
    task = await claimed(store)
    await store.fail(task, code=ErrorCode.DEADLINE, message="25 minutes are over")
    record = await current(store)
    assert (record.status, record.error_code, record.error_message) == (
        Status.FAILED,
        "deadline",
        "25 minutes are over",
    )


@pytest.mark.parametrize(("keep", "comfy_job_id"), [(True, "c-1"), (False, None)])
async def test_a_released_task_waits_again(
    store: TaskStore, clock: Clock, keep: bool, comfy_job_id: str | None
) -> None:
    task = await claimed(store)
    await store.note_upstream_job(task, "c-1")
    clock.at = NOW + 9
    await store.release(task, keep_upstream_job=keep)
    record = await current(store)
    assert (record.status, record.worker, record.lease_until) == (Status.PENDING, None, None)
    assert (record.queued_at, record.attempt, record.comfy_job_id) == (NOW + 9, 1, comfy_job_id)
    assert (await claim(store, worker="i-2")).attempt == 2


Verb = Callable[[TaskStore, TaskRecord], Awaitable[None]]
HOLDERS_VERBS: dict[str, Verb] = {
    "hold": lambda store, task: store.hold(task, lease_s=LEASE_S),
    "note_upstream_job": lambda store, task: store.note_upstream_job(task, "c-9"),
    "finish": lambda store, task: store.finish(task, result_s3_uri="s3://b/mine"),
    "fail": lambda store, task: store.fail(task, code=ErrorCode.DEADLINE, message="mine"),
    "release": lambda store, task: store.release(task, keep_upstream_job=True),
}
each_holders_verb = pytest.mark.parametrize("verb", HOLDERS_VERBS.values(), ids=HOLDERS_VERBS)


@each_holders_verb
async def test_a_worker_that_was_replaced_publishes_nothing(store: TaskStore, clock: Clock, verb: Verb) -> None:
    first = await claimed(store)
    clock.at = NOW + LEASE_S
    await claim(store, worker="i-2")
    before = await store.get("t")
    with pytest.raises(LeaseLost):
        await verb(store, first)
    assert await store.get("t") == before


@each_holders_verb
async def test_a_worker_whose_task_was_given_up_publishes_nothing(store: TaskStore, clock: Clock, verb: Verb) -> None:
    task = await claimed(store)
    await store.note_upstream_job(task, "c-9")
    clock.at = NOW + LEASE_S
    await store.give_up("t", code=ErrorCode.RULE_B, message="stuck")
    before = await store.get("t")
    with pytest.raises(LeaseLost):
        await verb(store, task)
    assert await store.get("t") == before


@each_holders_verb
async def test_a_worker_whose_task_vanished_publishes_nothing(store: TaskStore, verb: Verb) -> None:
    task = record_of(status=Status.PROCESSING, attempt=1)
    with pytest.raises(LeaseLost):
        await verb(store, task)
    assert await store.get("t") is None


@each_holders_verb
async def test_a_late_worker_whom_nobody_replaced_may_still_publish(store: TaskStore, clock: Clock, verb: Verb) -> None:
    task = await claimed(store)
    clock.at = NOW + 2 * LEASE_S
    await verb(store, task)


@each_holders_verb
async def test_a_write_whose_answer_was_lost_is_no_lost_lease(
    shaky_store: TaskStore, wire: UnreliableAws, verb: Verb
) -> None:
    task = await claimed(shaky_store)
    wire.calls.clear()
    wire.fates.append(Fate.DONE_BUT_NOT_ANSWERED)
    await verb(shaky_store, task)
    assert wire.calls == ["UpdateItem", "UpdateItem"]


async def test_a_verb_that_is_repeated_later_is_no_lost_lease(store: TaskStore, clock: Clock) -> None:
    task = await claimed(store)
    await store.finish(task, result_s3_uri="s3://b/k")
    clock.at = NOW + 5
    await store.finish(task, result_s3_uri="s3://b/k")
    assert (await current(store)).finished_at == NOW


async def test_another_result_of_the_same_attempt_is_no_echo(store: TaskStore) -> None:
    task = await claimed(store)
    await store.finish(task, result_s3_uri="s3://b/first")
    with pytest.raises(LeaseLost):
        await store.finish(task, result_s3_uri="s3://b/second")
    assert (await current(store)).result_s3_uri == "s3://b/first"


@pytest.mark.parametrize("later_s", [0, 0.001])
async def test_of_two_replicas_that_want_to_resend_one_does(store: TaskStore, clock: Clock, later_s: float) -> None:
    record = await created(store)
    clock.at = NOW + 600
    await store.resend(record)
    clock.at = NOW + 600 + later_s
    with pytest.raises(Overtaken):
        await store.resend(record)
    assert (await current(store)).sends == 2
    assert (await current(store)).queued_at == NOW + 600


async def test_a_task_that_was_claimed_meanwhile_is_not_resent(store: TaskStore) -> None:
    record = await created(store)
    await claim(store)
    with pytest.raises(Overtaken):
        await store.resend(record)


async def test_a_task_whose_worker_went_silent_is_resent(store: TaskStore, clock: Clock) -> None:
    task = await claimed(store)
    clock.at = NOW + LEASE_S
    await store.resend(task)
    assert (await current(store)).sends == 2


async def test_giving_up_fails_what_waits(store: TaskStore) -> None:
    await created(store)
    await store.give_up("t", code=ErrorCode.DEAD_LETTER, message="received too often")
    record = await current(store)
    assert (record.status, record.error_code) == (Status.FAILED, "dead_letter")


async def test_nobody_gives_up_what_is_held_finished_or_gone(store: TaskStore) -> None:
    task = await claimed(store)
    with pytest.raises(Overtaken):
        await store.give_up("t", code=ErrorCode.EXPIRED, message="too old")
    await store.finish(task, result_s3_uri="s3://b/k")
    with pytest.raises(Overtaken):
        await store.give_up("t", code=ErrorCode.EXPIRED, message="too old")
    with pytest.raises(Overtaken):
        await store.give_up("nobody", code=ErrorCode.EXPIRED, message="too old")
    assert (await current(store)).status is Status.COMPLETED


async def test_live_tasks_are_those_without_an_end_oldest_first(store: TaskStore) -> None:
    for number, status in enumerate([Status.PENDING, Status.COMPLETED, Status.PROCESSING, Status.PENDING]):
        await store.table.put(record_of(task_id=str(number), status=status, created_at=NOW - number).to_item())
    live = await live_tasks(store)
    assert [record.task_id for record in live] == ["3", "0", "2"]
    assert {record.request_body for record in live} == {""}


@pytest.mark.parametrize(
    ("status", "has_live"),
    [
        (None, False),
        (Status.PENDING, True),
        (Status.PROCESSING, True),
        (Status.COMPLETED, False),
        (Status.FAILED, False),
    ],
)
async def test_there_is_demand_while_a_task_has_no_end(store: TaskStore, status: Status | None, has_live: bool) -> None:
    if status is not None:
        await store.table.put(record_of(status=status).to_item())
    assert await store.has_live() is has_live
