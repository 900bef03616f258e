from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from lib.asyncaws.errors import TransientAwsError
from lib.asyncaws.queue import Depth
from lib.gputask.message import TaskMessage
from lib.gputask.record import ErrorCode, Status, TaskRecord
from services.devstack.emulator.faults import Mode
from services.orchestrator.janitor import Janitor
from services.orchestrator.quota import Quota
from services.orchestrator.submission import message_of
from services.orchestrator.sweeping import Sweeper
from services.orchestrator.tidying import Limits
from services.orchestrator.walk import Walk
from tests.gputask.records import live_tasks
from tests.orchestrator.aws_world import BODY, LARGE_BODY, AwsWorld, eventually

RESEND_AFTER_S = 600.0
MAX_AGE_S = 86_400.0


def janitor_of(world: AwsWorld) -> Janitor:
    return Janitor(
        store=world.tasks,
        walk=Walk(world.tasks),
        quota=Quota(1000),
        queue=world.queue,
        dead_letters=world.dead_letters,
        limits=Limits(resend_after_s=RESEND_AFTER_S, max_age_s=MAX_AGE_S),
        interval_s=0.05,
    )


@pytest.fixture
def janitor(world: AwsWorld) -> Janitor:
    return janitor_of(world)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as events:
        yield events


async def both_duties(janitor: Janitor, stop: asyncio.Event) -> None:
    await asyncio.gather(janitor.watch_dead_letters(stop), janitor.watch_tasks(stop))


@asynccontextmanager
async def working(janitor: Janitor) -> AsyncIterator[asyncio.Task[None]]:
    """The janitor, round after round."""
    stop = asyncio.Event()
    running = asyncio.create_task(both_duties(janitor, stop))
    try:
        yield running
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await running


async def tidy(janitor: Janitor) -> None:
    await janitor.tidy(asyncio.Event())


async def drain(janitor: Janitor) -> None:
    await janitor.drain_dead_letters(asyncio.Event())


async def stored(world: AwsWorld, task: TaskRecord) -> TaskRecord:
    record = await world.tasks.get(task.task_id)
    assert record is not None
    return record


async def claim(world: AwsWorld, task: TaskRecord) -> TaskRecord:
    return await world.tasks.claim(task.task_id, worker="w", lease_s=300, max_attempts=3)


def poison_of(task: TaskRecord) -> str:
    """A message of the task that no worker can read."""
    return json.dumps({"task_id": task.task_id})


async def bury(world: AwsWorld, body: str) -> None:
    """Put a letter into the dead-letter queue."""
    await world.dead_letters.send(body, {})


async def test_what_was_never_sent_is_sent(world: AwsWorld, janitor: Janitor) -> None:
    task = await world.add_task()
    world.clock.advance(RESEND_AFTER_S)
    await tidy(janitor)
    (message,) = await world.messages()
    assert message.body == message_of(task)
    assert json.loads(message.body)["request_body"] == json.loads(BODY)
    record = await stored(world, task)
    assert (record.sends, record.queued_at, record.status) == (2, world.clock.now, Status.PENDING)


async def test_what_may_still_be_taken_is_not_sent_again(world: AwsWorld, janitor: Janitor) -> None:
    await world.add_task()
    world.clock.advance(RESEND_AFTER_S - 1)
    await tidy(janitor)
    assert await world.messages() == []


async def test_each_send_is_waited_for_twice_as_long(world: AwsWorld, janitor: Janitor) -> None:
    await world.add_task()
    sent = []
    for _ in range(7):
        world.clock.advance(RESEND_AFTER_S)
        await tidy(janitor)
        messages = await world.messages()
        sent.append(len(messages))
        for message in messages:
            await world.queue.delete(message.receipt)
    # After 600 s, 1,200 s more, 2,400 s more.
    assert sent == [1, 0, 1, 0, 0, 0, 1]


async def test_the_task_of_a_silent_worker_is_sent_again_and_a_leased_one_is_not(
    world: AwsWorld, janitor: Janitor
) -> None:
    task = await world.add_task()
    await claim(world, task)
    world.clock.advance(299)
    await tidy(janitor)
    assert await world.messages() == []
    world.clock.advance(1 + RESEND_AFTER_S)
    await tidy(janitor)
    assert await world.messages_of(task) == 1


async def test_two_replicas_send_once(world: AwsWorld) -> None:
    tasks = [await world.add_task() for _ in range(5)]
    world.clock.advance(RESEND_AFTER_S)
    await asyncio.gather(*(tidy(janitor_of(world)) for _ in range(3)))
    sent = sorted(TaskMessage.from_json(message.body).task_id for message in await world.messages())
    assert sent == sorted(task.task_id for task in tasks)


async def test_a_replica_that_decided_before_another_one_sent_does_not_send(world: AwsWorld) -> None:
    task = await world.add_task()
    world.clock.advance(RESEND_AFTER_S)
    # It knows the task from the index by now, and reads its body when the other one is through.
    await world.fail("dynamodb", Mode.SLOW, "GetItem", delay_s=0.5, times=1)
    calls = await world.calls()
    late = asyncio.create_task(tidy(janitor_of(world)))
    await calls.reach("dynamodb", "GetItem", 1)
    world.clock.advance(1)
    await tidy(janitor_of(world))
    await late
    assert await world.messages_of(task) == 1
    assert (await stored(world, task)).sends == 2


@pytest.mark.parametrize("is_withdrawn", [False, True])
async def test_a_task_that_ended_since_the_index_was_read_is_left_alone(
    world: AwsWorld, janitor: Janitor, is_withdrawn: bool
) -> None:
    task = await world.add_task()
    world.clock.advance(RESEND_AFTER_S)
    await world.fail("dynamodb", Mode.SLOW, "GetItem", delay_s=0.5, times=1)
    calls = await world.calls()
    tidying = asyncio.create_task(tidy(janitor))
    await calls.reach("dynamodb", "GetItem", 1)
    if is_withdrawn:
        await world.tasks.withdraw(task)
    else:
        await world.tasks.give_up(task.task_id, code=ErrorCode.EXPIRED, message="too old")
    await tidying
    assert await world.messages() == []


async def test_a_send_that_failed_is_made_up_for(world: AwsWorld, janitor: Janitor) -> None:
    task = await world.add_task()
    world.clock.advance(RESEND_AFTER_S)
    await world.fail("sqs", Mode.ERROR, "SendMessage", code="AccessDenied", times=1)
    await tidy(janitor)
    world.clock.advance(2 * RESEND_AFTER_S)
    await tidy(janitor)
    assert await world.messages_of(task) == 1


async def test_one_task_that_cannot_be_sent_does_not_stop_the_others(
    world: AwsWorld, janitor: Janitor, events: list[Any]
) -> None:
    tasks = [await world.add_task() for _ in range(3)]
    world.clock.advance(RESEND_AFTER_S)
    await world.fail("sqs", Mode.ERROR, "SendMessage", code="InvalidMessageContents", times=1)
    await tidy(janitor)
    assert len(await world.messages()) == len(tasks) - 1
    (failure,) = [event for event in events if event["event"] == "task.tidying_failed"]
    assert failure["log_level"] == "error"
    assert failure["job_id"] in {task.task_id for task in tasks}


async def test_a_task_too_old_is_failed_with_its_cause(world: AwsWorld, janitor: Janitor) -> None:
    task = await world.add_task()
    world.clock.advance(MAX_AGE_S)
    await tidy(janitor)
    record = await stored(world, task)
    assert (record.status, record.error_code) == (Status.FAILED, "expired")
    assert record.error_message == "not finished within 24 h"
    assert await world.messages() == []


async def test_an_old_task_that_a_worker_holds_is_left_to_it(world: AwsWorld, janitor: Janitor) -> None:
    task = await world.add_task()
    world.clock.advance(MAX_AGE_S)
    claimed = await claim(world, task)
    await tidy(janitor)
    assert await stored(world, task) == claimed


async def test_a_message_nobody_can_process_ends_as_a_failed_task(world: AwsWorld, janitor: Janitor) -> None:
    task = await world.add_task()
    poison = json.dumps({"task_id": task.task_id, "api_path": 7})
    await world.queue.send(poison, {})
    # Each reader gives it back; the one after the last allowed receive finds nothing, and it is a dead letter.
    for _ in range(2):
        (message,) = await world.queue.receive(limit=1, wait_s=0, visibility_s=600)
        await world.queue.set_visibility(message.receipt, 0)
    assert await world.queue.receive(limit=1, wait_s=0) == []
    assert await world.dead_letter_count() == 1
    await drain(janitor)
    record = await stored(world, task)
    assert (record.status, record.error_code) == (Status.FAILED, "dead_letter")
    assert record.error_message
    assert await world.dead_letter_count() == 0


async def test_a_letter_about_a_finished_task_goes_and_the_task_stays_as_it_is(
    world: AwsWorld, janitor: Janitor
) -> None:
    task = await world.add_task()
    await world.tasks.finish(await claim(world, task), result_s3_uri="s3://results/1.png")
    finished = await stored(world, task)
    await bury(world, message_of(task))
    await drain(janitor)
    assert await world.dead_letter_count() == 0
    assert await stored(world, task) == finished


async def test_a_letter_about_a_task_in_work_stays_until_its_worker_is_lost(world: AwsWorld, janitor: Janitor) -> None:
    task = await world.add_task()
    claimed = await claim(world, task)
    await bury(world, message_of(task))
    await drain(janitor)
    assert await world.dead_letter_count() == 1
    assert await stored(world, task) == claimed

    # The first letter is out of sight for a while, so another one stands for its return.
    world.clock.advance(301)
    await bury(world, poison_of(task))
    await drain(janitor)
    assert await world.dead_letter_count() == 1
    assert (await stored(world, task)).error_code == "dead_letter"


async def test_a_letter_about_an_unknown_task_is_kept_and_reported_once(
    world: AwsWorld, janitor: Janitor, events: list[Any]
) -> None:
    """As after a table was restored from a backup: the letter is all that is left of what was promised."""
    task = await world.add_task()
    await bury(world, message_of(replace(task, task_id="00000000-0000-8000-8000-000000000000")))
    await bury(world, json.dumps({"task_id": "00000000-0000-8000-8000-000000000000"}))
    for _ in range(2):
        await drain(janitor)
    assert await world.dead_letter_count() == 1
    (event,) = [event for event in events if event["event"] == "dead_letters.of_unknown_tasks"]
    assert (event["log_level"], event["new"], event["in_all"]) == ("error", 1, 1)


async def test_a_letter_about_a_task_that_was_taken_back_goes(world: AwsWorld, janitor: Janitor) -> None:
    task = await world.add_task()
    await world.tasks.withdraw(task)
    await bury(world, message_of(task))
    await drain(janitor)
    assert await world.dead_letter_count() == 0


@pytest.mark.parametrize("body", ["not JSON", "[]", "{}", '{"task_id": 7}', '{"task_id": ""}', "[" * 50_000])
async def test_an_unreadable_letter_is_logged_and_goes(
    world: AwsWorld, janitor: Janitor, events: list[Any], body: str
) -> None:
    await bury(world, body)
    await drain(janitor)
    assert await world.dead_letter_count() == 0
    (event,) = [event for event in events if event["event"] == "dead_letter.unreadable"]
    assert event["log_level"] == "error"
    assert body not in str(event)


async def test_all_letters_are_drained(world: AwsWorld, janitor: Janitor) -> None:
    tasks = [await world.add_task() for _ in range(12)]
    for task in tasks:
        await bury(world, poison_of(task))
    await drain(janitor)
    assert await world.dead_letter_count() == 0
    assert await live_tasks(world.tasks) == []


async def test_a_letter_that_cannot_be_buried_stays_and_does_not_stop_the_others(
    world: AwsWorld, janitor: Janitor, events: list[Any]
) -> None:
    tasks = [await world.add_task() for _ in range(2)]
    for task in tasks:
        await bury(world, poison_of(task))
    await world.fail("dynamodb", Mode.ERROR, "UpdateItem", code="ValidationException", times=1)
    await drain(janitor)
    assert await world.dead_letter_count() == 1
    assert sorted([(await stored(world, task)).status for task in tasks]) == [Status.FAILED, Status.PENDING]
    (failure,) = [event for event in events if event["event"] == "dead_letter.burial_failed"]
    assert failure["log_level"] == "error"


async def test_records_that_make_no_sense_get_their_end_and_keep_nobody_else_waiting(
    world: AwsWorld, janitor: Janitor
) -> None:
    """Somebody wrote a text where a number belongs. It must not end the service, round after round."""
    broken, other, dead = [await world.add_task() for _ in range(3)]
    await world.table.put({**broken.to_item(), "queued_at": "yesterday", "attempt": "first", "sends": []})
    await world.table.put({**(await claim(world, dead)).to_item(), "expires_at": "soon", "lease_until": "later"})
    await bury(world, poison_of(dead))
    await drain(janitor)
    assert (await stored(world, dead)).error_code == "dead_letter"
    world.clock.advance(RESEND_AFTER_S)
    await tidy(janitor)
    assert (await stored(world, other)).sends == 2
    assert (await stored(world, broken)).sends == 1
    assert (await claim(world, broken)).attempt == 1


@pytest.mark.parametrize("status", ["processing", "pending"])
async def test_what_an_earlier_adapter_left_when_it_was_killed_gets_an_end(
    world: AwsWorld, janitor: Janitor, status: str
) -> None:
    """It knew neither leases nor attempts, and its request was in the message alone."""
    now = world.clock.now
    task_id = "00000000-0000-8000-8000-00000000000a"
    item = {"task_id": task_id, "status": status, "job_type": "/api/v1/camera-angle/jobs"}
    await world.table.put({**item, "created_at": now, "updated_at": now})
    await tidy(janitor)
    task = await world.tasks.get(task_id)
    assert task is not None
    assert task.status.value == status
    world.clock.advance(6 * RESEND_AFTER_S)
    await tidy(janitor)
    assert (await stored(world, task)).error_code == "worker_lost"
    assert await world.messages() == []


async def test_the_task_of_an_earlier_adapter_is_taken_over_in_mid_job(world: AwsWorld) -> None:
    now = world.clock.now
    task_id = "00000000-0000-8000-8000-00000000000b"
    item = {"task_id": task_id, "status": "processing", "job_type": "/api/v1/camera-angle/jobs", "comfy_job_id": "c-1"}
    await world.table.put({**item, "created_at": now, "updated_at": now})
    task = await world.tasks.claim(task_id, worker="w", lease_s=300, max_attempts=3)
    assert (task.attempt, task.comfy_job_id, task.worker) == (1, "c-1", "w")
    await world.tasks.finish(task, result_s3_uri="s3://b/k")
    assert (await stored(world, task)).status is Status.COMPLETED


@pytest.mark.parametrize("body", [BODY, LARGE_BODY], ids=["small", "large"])
async def test_a_dead_letter_of_a_task_that_was_never_claimed_is_queued_again(
    world: AwsWorld, janitor: Janitor, body: bytes
) -> None:
    task = await world.add_task(sends=50, request_body=body.decode(), request_sha256="5ha")
    await bury(world, message_of(task))
    await drain(janitor)
    assert await world.dead_letter_count() == 0
    assert (await stored(world, task)).status is Status.PENDING
    (message,) = await world.messages()
    assert message.body == message_of(task)


async def test_a_walk_goes_on_behind_the_task_that_an_error_met(world: AwsWorld, janitor: Janitor) -> None:
    tasks = [await world.add_task(created_at=world.clock.now + number) for number in range(3)]
    world.clock.advance(RESEND_AFTER_S)
    await world.fail("dynamodb", Mode.ERROR, "GetItem", code="ServiceUnavailable")
    quota = Quota(4)
    janitor = replace(janitor, quota=quota)
    with pytest.raises(TransientAwsError):
        await tidy(janitor)
    await world.mend()
    await tidy(janitor)
    assert [(await stored(world, task)).sends for task in tasks] == [1, 2, 2]
    # Each task counts once, whatever the round met.
    assert not quota.is_used_up("anonymous")
    await tidy(janitor)
    assert [(await stored(world, task)).sends for task in tasks] == [2, 2, 2]


async def test_while_the_queue_seems_to_hold_each_ones_message_nothing_is_sent_again(
    world: AwsWorld, janitor: Janitor
) -> None:
    tasks = [await world.add_task() for _ in range(3)]
    for task in tasks:
        await world.queue.send(message_of(task), {})
    world.clock.advance(RESEND_AFTER_S)
    await tidy(janitor)
    assert len(await world.messages()) == len(tasks)
    world.clock.advance(MAX_AGE_S / 4)
    await tidy(janitor)
    assert len(await world.messages()) == len(tasks), "whatever the counts say, each is sent again in the end"


@pytest.mark.parametrize("fails", [False, True])
async def test_where_the_queue_holds_too_few_or_does_not_tell_what_waits_is_sent(
    world: AwsWorld, janitor: Janitor, fails: bool
) -> None:
    tasks = [await world.add_task() for _ in range(2)]
    for task in tasks[fails ^ 1 :]:
        await world.queue.send(message_of(task), {})
    if fails:
        await world.fail("sqs", Mode.ERROR, "GetQueueAttributes", code="AccessDenied")
    world.clock.advance(RESEND_AFTER_S)
    await tidy(janitor)
    assert [await world.messages_of(task) for task in tasks] != [1, 1]
    assert [(await stored(world, task)).sends for task in tasks] == [2, 2]


async def test_what_tells_of_many_ended_tasks_is_swept_and_what_lives_stays(
    world: AwsWorld, janitor: Janitor, events: list[Any]
) -> None:
    ended = [await world.add_task() for _ in range(3)]
    for task in ended:
        await world.tasks.give_up(task.task_id, code=ErrorCode.EXPIRED, message="too old")
    await asyncio.gather(*(world.queue.send(message_of(task), {}) for task in ended * 50))
    live = await world.add_task()
    await world.queue.send(message_of(live), {})
    await tidy(janitor)
    depth = await world.queue.depth()
    assert depth.messages <= 10
    (event,) = [event for event in events if event["event"] == "messages.swept"]
    assert event["deleted"] >= 140
    assert (await stored(world, live)).sends == 1


async def test_a_sweep_ends_where_most_messages_are_alive(world: AwsWorld) -> None:
    live = [await world.add_task() for _ in range(30)]
    await asyncio.gather(*(world.queue.send(message_of(task), {}) for task in live))
    assert await Sweeper(store=world.tasks, queue=world.queue).sweep(100, asyncio.Event()) == 0
    assert await world.queue.depth() == Depth(visible=20, hidden=10)


async def test_a_sweep_leaves_messages_of_unknown_tasks_and_unreadable_ones(world: AwsWorld) -> None:
    for body in (json.dumps({"task_id": "00000000-0000-8000-8000-000000000000"}), "not JSON"):
        await world.queue.send(body, {})
    assert await Sweeper(store=world.tasks, queue=world.queue).sweep(100, asyncio.Event()) == 0
    assert (await world.queue.depth()).messages == 2


async def test_a_held_task_does_not_wait_behind_the_waiting_ones(world: AwsWorld, janitor: Janitor) -> None:
    held = await world.add_task()
    await world.tasks.claim(held.task_id, worker="w", lease_s=1, max_attempts=3)
    for _ in range(3):
        await world.add_task()
    world.clock.advance(RESEND_AFTER_S + 1)
    await tidy(replace(janitor, walk=Walk(world.tasks, most_a_round=1)))
    assert (await stored(world, held)).sends == 2


async def test_a_duplicate_among_the_dead_letters_does_not_fail_a_released_task(
    world: AwsWorld, janitor: Janitor
) -> None:
    task = await world.add_task()
    claimed = await claim(world, task)
    await world.tasks.note_upstream_job(claimed, "c-1")
    await world.tasks.release(claimed, keep_upstream_job=True)
    await bury(world, message_of(task))
    await drain(janitor)
    released = await stored(world, task)
    assert (released.status, released.comfy_job_id) == (Status.PENDING, "c-1")
    assert await world.messages_of(task) == 1


async def test_a_dead_letter_queue_out_of_order_does_not_keep_tasks_from_being_sent(
    world: AwsWorld, janitor: Janitor
) -> None:
    task = await world.add_task()
    world.clock.advance(RESEND_AFTER_S)
    await world.fail("sqs", Mode.ERROR, "ReceiveMessage", code="AWS.SimpleQueueService.NonExistentQueue")
    calls = await world.calls()
    async with working(janitor):
        await calls.reach("sqs", "SendMessage", 1)
    await world.mend()
    assert await world.messages_of(task) == 1


@pytest.mark.parametrize("code", ["AccessDeniedException", "ServiceUnavailable"])
async def test_errors_of_aws_do_not_end_the_janitor(
    world: AwsWorld, janitor: Janitor, events: list[Any], code: str
) -> None:
    task = await world.add_task()
    world.clock.advance(RESEND_AFTER_S)
    await world.fail("dynamodb", Mode.ERROR, code=code)

    async def is_noted() -> bool:
        return any(event["event"] == "janitor.round_failed" for event in events)

    async with working(janitor) as running:
        await eventually(is_noted)
        calls = await world.calls()
        await world.mend()
        await calls.reach("sqs", "SendMessage", 1)
        assert not running.done()
    assert await world.messages_of(task) == 1
    (level,) = {event["log_level"] for event in events if event["event"] == "janitor.round_failed"}
    assert level == ("error" if code == "AccessDeniedException" else "warning")


async def test_a_stop_ends_a_round_between_tasks(world: AwsWorld, janitor: Janitor) -> None:
    for _ in range(3):
        await world.add_task()
    await bury(world, "not JSON")
    world.clock.advance(RESEND_AFTER_S)
    stop = asyncio.Event()
    stop.set()
    await janitor.tidy(stop)
    await janitor.drain_dead_letters(stop)
    assert await world.messages() == []
    assert await world.dead_letter_count() == 1


async def test_a_round_is_bounded_and_the_next_goes_on_where_it_ended(world: AwsWorld, janitor: Janitor) -> None:
    tasks = [await world.add_task(created_at=world.clock.now + number) for number in range(5)]
    world.clock.advance(RESEND_AFTER_S)
    walker = replace(janitor, walk=Walk(world.tasks, most_a_round=2))
    reached = []
    for _ in range(4):
        await tidy(walker)
        reached.append(sum([(await stored(world, task)).sends == 2 for task in tasks]))
    assert reached == [2, 4, 5, 5]


async def test_a_walk_of_many_rounds_counts_all_it_has_seen(world: AwsWorld) -> None:
    for number in range(5):
        await world.add_task(created_at=world.clock.now + number)
    walk = Walk(world.tasks, most_a_round=2)
    rounds = []
    for _ in range(4):
        stretch = await walk.next_round()
        rounds.append((len(stretch.tasks), stretch.seen, stretch.is_whole))
        for task in stretch.tasks:
            walk.pass_by(task)
        walk.end_round(stretch)
    assert rounds == [(2, 2, False), (2, 4, False), (1, 5, False), (2, 2, False)]
    assert (await Walk(world.tasks).next_round()).is_whole


async def test_after_an_error_the_walk_goes_on_where_it_was(world: AwsWorld, janitor: Janitor) -> None:
    """Begun anew each time, a walk with one bad call in each round would never come to the younger tasks."""
    tasks = [await world.add_task(created_at=world.clock.now + number) for number in range(3)]
    world.clock.advance(RESEND_AFTER_S)
    walker = replace(janitor, walk=Walk(world.tasks, most_a_round=1))
    await tidy(walker)
    await world.fail("dynamodb", Mode.ERROR, "Query", code="ServiceUnavailable")
    with pytest.raises(TransientAwsError):
        await tidy(walker)
    await world.mend()
    await tidy(walker)
    assert [(await stored(world, task)).sends for task in tasks] == [2, 2, 1]
