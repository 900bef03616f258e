from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from lib.asyncaws.queue import Queue
from lib.asyncaws.session import REQUEST, AwsSession, CallPolicy
from lib.asyncaws.table import Table
from lib.gputask.kinds import CAMERA_ANGLE, QWEN_IMAGE_EDIT, Kind
from lib.gputask.record import ErrorCode, Status, TaskRecord
from lib.gputask.schema import TABLE_KEY
from lib.gputask.store import TaskStore
from services.devstack.emulator.faults import Mode
from services.orchestrator.errors import IdempotencyConflict, TooManyUnfinished, Unavailable
from services.orchestrator.janitor import Janitor
from services.orchestrator.quota import Quota
from services.orchestrator.submission import Submission
from services.orchestrator.tidying import Limits
from services.orchestrator.walk import Walk
from services.orchestrator.withdrawal import Withdrawals
from tests.gputask.records import live_tasks
from tests.orchestrator.aws_world import BODY, LARGE_BODY, OTHER_BODY, AwsWorld, Clock, eventually

MOST_UNFINISHED = 6
RETENTION_S = 604_800.0
RESEND_AFTER_S = 600.0
# What the design promises a client: an answer within a second.
PROMISE_S = 1.0

# What is not about that second shall not fail because the machine is busy.
PATIENT = CallPolicy(total_s=10, read_timeout_s=5, attempts=3)
PATIENCE = {"budget_s": 10.0, "take_back_s": 5.0}


@dataclass(frozen=True, slots=True)
class RequestPath:
    """Table and queue over clients of their own."""

    table: Table
    queue: Queue


async def path_of(aws: AwsSession, world: AwsWorld, policy: CallPolicy) -> RequestPath:
    dynamodb, sqs = await aws.dynamodb(policy), await aws.sqs(policy)
    return RequestPath(
        table=Table(dynamodb, name=world.table_name, key=TABLE_KEY, policy=policy),
        queue=Queue(sqs, url=world.queue_url, policy=policy),
    )


class Front:
    """A submission and how often it nudged."""

    def __init__(self, path: RequestPath, clock: Clock | None = None, *, limits: Mapping[str, Any] = PATIENCE) -> None:
        self.nudges = 0
        self.quota = Quota(MOST_UNFINISHED)
        self.clock = clock or Clock(tick_s=0.001)
        store = TaskStore(path.table, self.clock)
        self.withdrawals = Withdrawals(store, first_pause_s=0.01)
        self._submission = Submission(
            store=store,
            queue=path.queue,
            nudge=self._nudge,
            retention_s=RETENTION_S,
            quota=self.quota,
            withdrawals=self.withdrawals,
            **limits,
        )

    async def submit(
        self, body: bytes = BODY, *, key: str | None = None, client_id: str = "web", kind: Kind = CAMERA_ANGLE
    ) -> TaskRecord:
        return await self._submission.submit(
            kind=kind, body=body, client_id=client_id, idempotency_key=key, request_id="request-1"
        )

    async def find(self, body: bytes = BODY, *, key: str) -> TaskRecord | None:
        return await self._submission.find(kind=CAMERA_ANGLE, body=body, client_id="web", idempotency_key=key)

    def _nudge(self) -> None:
        self.nudges += 1


@pytest.fixture
async def path(aws: AwsSession, world: AwsWorld) -> RequestPath:
    return await path_of(aws, world, PATIENT)


@pytest.fixture
async def promised(aws: AwsSession, world: AwsWorld) -> Front:
    """With the limits clients are promised."""
    path = await path_of(aws, world, REQUEST)
    # The first call of a client takes several times as long as the next: no matter of the budgets under test.
    await path.table.check()
    await path.queue.check()
    return Front(path, limits={})


@pytest.fixture
def front(path: RequestPath) -> Front:
    return Front(path)


def janitor_of(world: AwsWorld) -> Janitor:
    return Janitor(
        store=world.tasks,
        walk=Walk(world.tasks),
        quota=Quota(1000),
        queue=world.queue,
        dead_letters=world.dead_letters,
        limits=Limits(resend_after_s=RESEND_AFTER_S, max_age_s=86_400),
        interval_s=60,
    )


async def only_task(world: AwsWorld) -> TaskRecord:
    tasks = await live_tasks(world.tasks)
    assert len(tasks) == 1
    return tasks[0]


async def assert_nothing_promised(world: AwsWorld) -> None:
    assert await live_tasks(world.tasks) == []


async def within_the_promise(submit: Callable[[], Awaitable[TaskRecord]]) -> TaskRecord:
    """A busy machine may hold up one try, or two; a broken promise is broken each time."""
    for _ in range(2):
        with suppress(TimeoutError):
            async with asyncio.timeout(PROMISE_S):
                return await submit()
    async with asyncio.timeout(PROMISE_S):
        return await submit()


@asynccontextmanager
async def submitting(front: Front, key: str, body: bytes = BODY) -> AsyncIterator[asyncio.Task[TaskRecord]]:
    """A submission under way, cancelled at the end if it still is."""
    task = asyncio.create_task(front.submit(body, key=key))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_task_is_recorded_queued_and_the_waker_nudged(world: AwsWorld, front: Front) -> None:
    accepted = await front.submit()
    recorded = await world.tasks.get(accepted.task_id)
    assert recorded == accepted
    assert recorded.status is Status.PENDING
    assert (recorded.job_type, recorded.client_id) == ("/api/v1/camera-angle/jobs", "web")
    assert recorded.request_body == BODY.decode()
    assert world.clock.now < recorded.created_at <= front.clock.now
    assert recorded.created_at == recorded.updated_at == recorded.queued_at
    assert recorded.expires_at == int(recorded.created_at + RETENTION_S)
    assert front.nudges == 1


async def test_the_message_carries_the_body_as_it_came_and_the_request_id(world: AwsWorld, front: Front) -> None:
    accepted = await front.submit()
    (message,) = await world.messages()
    escaped = BODY.decode().replace("线稿", "\\u7ebf\\u7a3f").replace("🎨", "\\ud83c\\udfa8")
    head = f'{{"task_id": "{accepted.task_id}", "api_path": "/api/v1/camera-angle/jobs", "request_body": '
    assert message.body == head + escaped + "}"
    assert json.loads(message.body)["request_body"] == json.loads(BODY)
    assert message.attributes == {"request_id": "request-1"}


async def test_a_submission_is_two_calls_to_aws_and_none_to_ec2(world: AwsWorld, front: Front) -> None:
    calls = await world.calls()
    await front.submit()
    assert await calls.all() == {"PutItem": 1, "SendMessage": 1}


async def test_two_submissions_without_a_key_are_two_tasks(world: AwsWorld, front: Front) -> None:
    assert (await front.submit()).task_id != (await front.submit()).task_id


async def test_the_same_key_and_body_is_the_same_job(world: AwsWorld, front: Front) -> None:
    first = await front.submit(key="k")
    reordered = json.dumps(dict(reversed(json.loads(BODY).items()))).encode()
    assert (await front.submit(key="k")).task_id == first.task_id
    assert (await front.submit(reordered, key="k")).task_id == first.task_id
    assert (await only_task(world)).task_id == first.task_id


async def test_a_waiting_task_is_sent_once_more_however_often_its_key_is_repeated(
    world: AwsWorld, front: Front
) -> None:
    # Its first message may never have been sent: whoever sees a task only waiting cannot know.
    first = await front.submit(key="k")
    for _ in range(4):
        await front.submit(key="k")
    assert await world.messages_of(first) == 2


@pytest.mark.parametrize("is_finished", [False, True])
async def test_a_task_that_was_taken_is_not_sent_again_for_its_key(
    world: AwsWorld, front: Front, is_finished: bool
) -> None:
    first = await front.submit(key="k")
    claimed = await world.tasks.claim(first.task_id, worker="w", lease_s=300, max_attempts=3)
    if is_finished:
        await world.tasks.finish(claimed, result_s3_uri="s3://results/1.png")
    calls = await world.calls()
    again = await front.submit(key="k")
    assert again.task_id == first.task_id
    assert again.status is (Status.COMPLETED if is_finished else Status.PROCESSING)
    assert again.result_s3_uri == ("s3://results/1.png" if is_finished else None)
    assert await calls.all() == {"PutItem": 1}


@pytest.mark.parametrize(
    ("body", "kind"), [(OTHER_BODY, CAMERA_ANGLE), (BODY, QWEN_IMAGE_EDIT)], ids=["another body", "another kind"]
)
async def test_the_same_key_for_another_request_is_a_conflict(
    world: AwsWorld, front: Front, body: bytes, kind: Kind
) -> None:
    first = await front.submit(key="k")
    calls = await world.calls()
    with pytest.raises(IdempotencyConflict):
        await front.submit(body, key="k", kind=kind)
    assert await calls.all() == {"PutItem": 1}
    assert await world.tasks.get(first.task_id) == first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"image_url": "s3://p/c", "zoom": 1, "seed": 0}', b'{"seed":-0.0, "zoom":1.0, "image_url":"s3://p/c"}'),
        (b'{"image_url": "s3://p/c", "seed": 100000}', b'{"image_url": "s3://p/c", "seed": 1e5}'),
    ],
)
async def test_a_number_is_the_same_with_and_without_a_point(
    world: AwsWorld, front: Front, one: bytes, other: bytes
) -> None:
    assert (await front.submit(one, key="k")).task_id == (await front.submit(other, key="k")).task_id
    assert (await front.submit(other, key="l")).task_id == (await front.submit(one, key="l")).task_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"image_url": "s3://p/c", "zoom": 1}', b'{"image_url": "s3://p/c", "zoom": true}'),
        (b'{"image_url": "s3://p/c", "cfg": 1}', b'{"image_url": "s3://p/c", "cfg": 1.5}'),
        (b'{"image_url": "s3://p/c", "cfg": 1}', b'{"image_url": "s3://p/c", "cfg": "1.0"}'),
    ],
)
async def test_other_values_are_another_request(front: Front, one: bytes, other: bytes) -> None:
    await front.submit(one, key="k")
    with pytest.raises(IdempotencyConflict):
        await front.submit(other, key="k")


async def test_a_key_of_an_earlier_version_finds_its_task(world: AwsWorld, front: Front) -> None:
    """Its fingerprint told 1.0 from 1."""
    first = await front.submit(key="k")
    canonical = json.dumps(json.loads(BODY), sort_keys=True, separators=(",", ":"))
    assert '"zoom":1.0' in canonical
    earlier = hashlib.sha256(f"{CAMERA_ANGLE.api_path}\n{canonical}".encode()).hexdigest()
    assert earlier != first.request_sha256
    await world.table.put(first.to_item() | {"request_sha256": earlier})
    assert (await front.submit(key="k")).task_id == first.task_id


async def test_a_task_is_found_by_its_key_without_making_one(world: AwsWorld, front: Front) -> None:
    assert await front.find(key="k") is None
    first = await front.submit(key="k")
    assert await front.find(key="k") == first
    with pytest.raises(IdempotencyConflict):
        await front.find(OTHER_BODY, key="k")
    assert len(await world.messages()) == 1


async def test_two_clients_with_the_same_key_have_two_jobs(world: AwsWorld, front: Front) -> None:
    one, other = await front.submit(key="k", client_id="one"), await front.submit(key="k", client_id="other")
    assert one.task_id != other.task_id
    assert len(await world.messages()) == 2


async def test_a_client_at_its_quota_gets_no_new_job_and_finds_those_it_has(world: AwsWorld, front: Front) -> None:
    first = await front.submit(key="k")
    for _ in range(MOST_UNFINISHED - 1):
        await front.submit()
    for key in (None, "another"):
        with pytest.raises(TooManyUnfinished) as refusal:
            await front.submit(key=key)
        assert refusal.value.retry_after_s > 0
    assert len(await live_tasks(world.tasks)) == MOST_UNFINISHED
    assert (await front.submit(key="k")).task_id == first.task_id
    assert (await front.submit(client_id="other")).client_id == "other"


async def test_a_client_may_go_on_once_the_janitor_has_seen_its_jobs_end(world: AwsWorld, front: Front) -> None:
    janitor = replace(janitor_of(world), quota=front.quota)
    tasks = [await front.submit() for _ in range(MOST_UNFINISHED)]
    world.clock.advance(1)
    await janitor.tidy(asyncio.Event())
    with pytest.raises(TooManyUnfinished):
        await front.submit()
    await world.tasks.give_up(tasks[0].task_id, code=ErrorCode.EXPIRED, message="too old")
    await janitor.tidy(asyncio.Event())
    await front.submit()
    with pytest.raises(TooManyUnfinished):
        await front.submit()


async def test_an_expired_task_does_not_take_its_key_along(world: AwsWorld, front: Front) -> None:
    first = await front.submit(key="k")
    front.clock.advance(RETENTION_S + 1)
    again = await front.submit(OTHER_BODY, key="k")
    assert again.task_id == first.task_id
    assert (await only_task(world)).created_at == again.created_at > first.created_at


async def test_submissions_with_one_key_at_the_same_time_make_one_task(world: AwsWorld, path: RequestPath) -> None:
    # As many replicas, their clocks alike to the millisecond.
    fronts = [Front(path, Clock()) for _ in range(12)]
    answers = await asyncio.gather(*(front.submit(key="k") for front in fronts))
    task = await only_task(world)
    assert {answer.task_id for answer in answers} == {task.task_id}
    assert 1 <= await world.messages_of(task) <= 2


@pytest.mark.parametrize("mode", [Mode.ERROR, Mode.THROTTLE, Mode.HANG])
@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
async def test_aws_failing_is_said_within_the_second(
    world: AwsWorld, promised: Front, service: str, mode: Mode
) -> None:
    await world.fail(service, mode)
    with pytest.raises(Unavailable) as refusal:
        await within_the_promise(promised.submit)
    assert refusal.value.retry_after_s > 0
    assert promised.nudges == 0


async def test_a_table_that_cannot_even_take_back_does_not_cost_the_second(world: AwsWorld, promised: Front) -> None:
    await world.fail("sqs", Mode.HANG, "SendMessage")
    await world.fail("dynamodb", Mode.HANG, "DeleteItem")
    with pytest.raises(Unavailable):
        await within_the_promise(promised.submit)


@pytest.mark.parametrize("mode", [Mode.ERROR, Mode.THROTTLE, Mode.HANG, Mode.DROP])
async def test_a_record_whose_message_cannot_be_sent_is_taken_back(
    world: AwsWorld, path: RequestPath, mode: Mode
) -> None:
    front = Front(path, limits=PATIENCE | {"budget_s": 0.5})
    await world.fail("sqs", mode, "SendMessage")
    with pytest.raises(Unavailable):
        await front.submit()
    assert front.nudges == 0
    await assert_nothing_promised(world)


@pytest.mark.parametrize("mode", [Mode.ERROR, Mode.THROTTLE, Mode.HANG])
async def test_without_a_record_nothing_is_sent(world: AwsWorld, path: RequestPath, mode: Mode) -> None:
    await world.fail("dynamodb", mode)
    calls = await world.calls()
    with pytest.raises(Unavailable):
        await Front(path, limits={"budget_s": 0.5, "take_back_s": 0.1}).submit()
    assert await calls.count("sqs") == 0


async def taken_back(front: Front) -> None:
    """Let the background end its work."""
    finish = asyncio.Event()
    finish.set()
    await front.withdrawals.run(finish)


async def test_a_taking_back_that_fails_goes_on_in_the_background(world: AwsWorld, path: RequestPath) -> None:
    front = Front(path, limits={"budget_s": 10.0, "take_back_s": 0.05})
    await world.fail("sqs", Mode.ERROR, "SendMessage")
    await world.fail("dynamodb", Mode.HANG, "UpdateItem")
    with pytest.raises(Unavailable):
        await front.submit()
    assert len(front.withdrawals) == 1
    await world.mend()
    await taken_back(front)
    await assert_nothing_promised(world)


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_record_that_is_written_after_its_request_was_refused_is_taken_back(
    world: AwsWorld, path: RequestPath, key: str | None
) -> None:
    front = Front(path, limits={"budget_s": 0.3, "take_back_s": 5.0, "in_flight_s": 3.0})
    # The first call of a client takes long enough not even to be sent within that budget.
    await path.table.check()
    await world.fail("dynamodb", Mode.SLOW, "PutItem", delay_s=0.8)
    with capture_logs() as lines, pytest.raises(Unavailable):
        await front.submit(key=key)
    (job_id,) = (line["job_id"] for line in lines if line["event"] == "submission.failed")
    await taken_back(front)

    async def is_written() -> bool:
        return await world.tasks.find(job_id) is not None

    await eventually(is_written)
    await assert_nothing_promised(world)


async def test_a_submission_that_is_cut_off_is_taken_back(world: AwsWorld, front: Front) -> None:
    await world.fail("sqs", Mode.HANG, "SendMessage")
    calls = await world.calls()
    submitting = asyncio.create_task(front.submit())
    await calls.reach("sqs", "SendMessage", 1)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    await taken_back(front)
    await assert_nothing_promised(world)


async def test_after_a_failure_the_same_key_finds_a_clean_slate(world: AwsWorld, front: Front) -> None:
    await world.fail("sqs", Mode.ERROR, "SendMessage")
    with pytest.raises(Unavailable):
        await front.submit(key="k")
    await world.mend()
    accepted = await front.submit(OTHER_BODY, key="k")
    assert await world.messages_of(accepted) == 1


@pytest.mark.parametrize("action", ["PutItem", "SendMessage"])
@pytest.mark.parametrize("mode", [Mode.ERROR, Mode.THROTTLE, Mode.DROP])
async def test_one_failed_call_is_tried_again(world: AwsWorld, front: Front, action: str, mode: Mode) -> None:
    service = "dynamodb" if action == "PutItem" else "sqs"
    await world.fail(service, mode, action, times=1)
    accepted = await front.submit()
    assert front.nudges == 1
    # SQS took a message whose answer was lost; the second one finds the task claimed.
    is_doubled = mode is Mode.DROP and action == "SendMessage"
    assert await world.messages_of(accepted) == (2 if is_doubled else 1)


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_record_whose_answer_was_lost_is_no_conflict_with_itself(
    world: AwsWorld, front: Front, key: str | None
) -> None:
    await world.fail("dynamodb", Mode.DROP, "PutItem", times=1)
    accepted = await front.submit(key=key)
    assert (await only_task(world)).task_id == accepted.task_id
    assert await world.messages_of(accepted) == 1


async def test_a_task_without_a_key_whose_answer_was_lost_is_taken_back_like_any_other(
    world: AwsWorld, front: Front
) -> None:
    await world.fail("dynamodb", Mode.DROP, "PutItem", times=1)
    await world.fail("sqs", Mode.ERROR, "SendMessage")
    with pytest.raises(Unavailable):
        await front.submit()
    await assert_nothing_promised(world)


Heal = Callable[[AwsWorld, Front, bytes], Awaitable[object]]


async def _repeat(world: AwsWorld, front: Front, body: bytes) -> None:
    await front.submit(body, key="k")


async def _tidy(world: AwsWorld, front: Front, body: bytes) -> None:
    world.clock.advance(RESEND_AFTER_S + 1)
    await janitor_of(world).tidy(asyncio.Event())


@pytest.mark.parametrize("body", [BODY, LARGE_BODY], ids=["small", "large"])
@pytest.mark.parametrize("heal", [_repeat, _tidy])
async def test_a_crash_between_record_and_message_is_healed(
    world: AwsWorld, front: Front, heal: Heal, body: bytes
) -> None:
    await world.fail("sqs", Mode.HANG, "SendMessage")
    calls = await world.calls()
    async with submitting(front, "k", body):
        await calls.reach("sqs", "SendMessage", 1)
    # Cancelled, it does not clean up, as if the process had been killed there.
    await world.mend()
    task = await only_task(world)
    assert await world.messages_of(task) == 0
    await heal(world, front, body)
    (message,) = await world.messages()
    assert json.loads(message.body)["request_body"] == json.loads(body)


@pytest.mark.parametrize("apart_s", [0.0, 0.001, 5.0])
async def test_a_failing_request_does_not_take_back_what_another_with_its_key_was_promised(
    world: AwsWorld, path: RequestPath, apart_s: float
) -> None:
    # The first one waits in vain for SQS, for as long as the other one may need.
    one, other = Front(path, Clock(), limits=PATIENCE | {"budget_s": 2}), Front(path, Clock())
    other.clock.now = one.clock.now + apart_s
    await world.fail("sqs", Mode.HANG, "SendMessage", times=1)
    calls = await world.calls()
    async with submitting(one, "k") as failing:
        await calls.reach("sqs", "SendMessage", 1)
        accepted = await other.submit(key="k")
        with pytest.raises(Unavailable):
            await failing
    assert await world.tasks.get(accepted.task_id) is not None
    assert await world.messages_of(accepted) == 1


async def test_a_request_that_meets_a_taking_back_promises_nothing(world: AwsWorld, front: Front) -> None:
    first = await front.submit(key="k")
    await world.fail("dynamodb", Mode.SLOW, "UpdateItem", delay_s=0.3, times=1)
    calls = await world.calls()
    async with submitting(front, "k") as repeated:
        await calls.reach("dynamodb", "UpdateItem", 1)
        await world.tasks.withdraw(first)
        with pytest.raises(Unavailable):
            await repeated
    await assert_nothing_promised(world)
