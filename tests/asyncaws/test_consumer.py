from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import structlog

from lib.asyncaws.consumer import Consumer, Delivery, Unserviceable
from lib.asyncaws.errors import PermanentAwsError, ReceiptLost
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import BACKGROUND, AwsSession, long_poll
from lib.daemon.waiting import wait_for
from tests.asyncaws.unreliable import DENIED, THROTTLED, Fate, Refusal, UnreliableAws, unreliable_aws
from tests.conftest import REGION

pytestmark = pytest.mark.emulators("moto", "ministack")

WAIT_S = 20


@pytest.fixture
async def wire(aws_endpoint: str) -> AsyncIterator[UnreliableAws]:
    """The way on which consumers receive."""
    async with unreliable_aws(aws_endpoint) as server:
        yield server


@pytest.fixture
async def source(wire: UnreliableAws, aws_environment: None, task_queue: str) -> AsyncIterator[Queue]:
    async with AwsSession(region=REGION, endpoint_url=wire.url) as session:
        policy = long_poll(WAIT_S)
        yield Queue(await session.sqs(policy), url=task_queue, policy=policy)


@pytest.fixture
async def answers(aws: AwsSession, task_queue: str) -> Queue:
    return Queue(await aws.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)


@pytest.fixture
async def in_flight(aws: AwsSession, task_queue: str) -> Callable[[], Awaitable[int]]:
    """How many messages are received and neither deleted nor given back."""
    client = await aws.sqs(BACKGROUND)

    async def count() -> int:
        name: Any = "ApproximateNumberOfMessagesNotVisible"
        answer = await client.get_queue_attributes(QueueUrl=task_queue, AttributeNames=[name])
        return int(answer["Attributes"][name])

    return count


async def always() -> bool:
    return True


async def acknowledge(delivery: Delivery) -> None:
    await delivery.acknowledge()


def consumer_of(source: Queue, answers: Queue, **kwargs: Any) -> Consumer:
    settings: dict[str, Any] = {"handler": acknowledge, "gate": always, "slots": 1, "wait_s": WAIT_S}
    return Consumer(source=source, answers=answers, visibility_s=300, **(settings | kwargs))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  a line of the log signals nothing
            await asyncio.sleep(0.01)


async def send_all(queue: Queue, count: int) -> None:
    for number in range(count):
        await queue.send(str(number), {})


async def test_every_message_is_handled_and_gone(
    source: Queue, answers: Queue, in_flight: Callable[[], Awaitable[int]]
) -> None:
    await send_all(answers, 3)
    stop = asyncio.Event()
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        await delivery.acknowledge()
        handled.append(delivery.message.body)
        if len(handled) == 3:
            stop.set()

    await consumer_of(source, answers, handler=handle).run(stop)
    assert sorted(handled) == ["0", "1", "2"]
    assert await in_flight() == 0
    assert await answers.receive(limit=10, wait_s=0) == []


async def test_never_are_more_messages_in_flight_than_slots(
    source: Queue, answers: Queue, in_flight: Callable[[], Awaitable[int]]
) -> None:
    await send_all(answers, 6)
    stop, full, proceed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    running: set[str] = set()
    most, handled = 0, 0

    async def handle(delivery: Delivery) -> None:
        nonlocal most, handled
        running.add(delivery.message.id)
        most = max(most, len(running))
        if len(running) == 2:
            full.set()
        await proceed.wait()
        await delivery.acknowledge()
        running.remove(delivery.message.id)
        handled += 1
        if handled == 6:
            stop.set()

    pool = asyncio.create_task(consumer_of(source, answers, handler=handle, slots=2, wait_s=1).run(stop))
    await full.wait()
    assert await in_flight() == 2  # nothing waits in a buffer while its visibility runs out
    proceed.set()
    await pool
    assert (most, handled) == (2, 6)


async def test_a_vacated_slot_takes_one_more_message_while_the_result_of_the_last_is_written(
    source: Queue, answers: Queue, in_flight: Callable[[], Awaitable[int]]
) -> None:
    await send_all(answers, 3)
    stop, written, second_over, third_begun = (asyncio.Event() for _ in range(4))
    begun: list[str] = []
    acknowledged: list[str] = []

    async def handle(delivery: Delivery) -> None:
        begun.append(delivery.message.body)
        number = len(begun)
        if number == 3:
            third_begun.set()
        delivery.vacate()
        if number == 2:
            second_over.set()
        await written.wait()
        await delivery.acknowledge()
        acknowledged.append(delivery.message.body)
        if number == 3:
            stop.set()

    pool = asyncio.create_task(consumer_of(source, answers, handler=handle, wait_s=1).run(stop))
    await second_over.wait()
    # The third must wait: where results cannot be written no more work is begun.
    assert not await wait_for(third_begun, 0.3)
    assert (len(begun), acknowledged, await in_flight()) == (2, [], 2)
    written.set()
    await pool
    assert sorted(acknowledged) == ["0", "1", "2"]


async def test_a_stop_waits_for_the_results_of_vacated_slots(source: Queue, answers: Queue) -> None:
    await send_all(answers, 1)
    stop, written, vacated = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        delivery.vacate()
        vacated.set()
        await written.wait()
        await delivery.acknowledge()

    pool = asyncio.create_task(consumer_of(source, answers, handler=handle, wait_s=0).run(stop))
    await vacated.wait()
    stop.set()
    done, _ = await asyncio.wait({pool}, timeout=0.2)
    assert not done
    written.set()
    await pool


async def test_the_gate_is_asked_before_each_receive(wire: UnreliableAws, source: Queue, answers: Queue) -> None:
    await send_all(answers, 2)
    stop = asyncio.Event()

    async def gate() -> bool:
        wire.calls.append("gate")
        return True

    async def handle(delivery: Delivery) -> None:
        if delivery.message.body == "1":
            stop.set()

    await consumer_of(source, answers, handler=handle, gate=gate).run(stop)
    assert wire.calls == ["gate", "ReceiveMessage"] * 2


async def test_nothing_is_received_while_the_gate_is_closed(wire: UnreliableAws, source: Queue, answers: Queue) -> None:
    await send_all(answers, 1)
    stop = asyncio.Event()
    asked = 0

    async def gate() -> bool:
        nonlocal asked
        asked += 1
        if asked == 10:
            stop.set()
        await asyncio.sleep(0)
        return False

    await consumer_of(source, answers, gate=gate).run(stop)
    assert asked == 10
    assert wire.calls == []


async def test_a_stop_during_the_gate_receives_nothing(wire: UnreliableAws, source: Queue, answers: Queue) -> None:
    stop = asyncio.Event()

    async def gate() -> bool:
        stop.set()
        return True

    await consumer_of(source, answers, gate=gate).run(stop)
    assert wire.calls == []


async def test_a_stop_lets_the_open_receive_finish_and_hands_back_what_it_brought(
    wire: UnreliableAws, source: Queue, answers: Queue
) -> None:
    """Cancelling a long poll would not end it at SQS: what it then finds is hidden for a whole timeout."""
    stop = asyncio.Event()
    handled: list[Delivery] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(delivery)

    pool = asyncio.create_task(consumer_of(source, answers, handler=handle).run(stop))
    await wire.arrived.wait()
    stop.set()
    await answers.send("late", {})
    await pool
    assert handled == []
    assert wire.calls == ["ReceiveMessage"]
    (message,) = await answers.receive(limit=1, wait_s=0)
    assert (message.body, message.receive_count) == ("late", 2)


async def test_a_stop_waits_for_the_handler(source: Queue, answers: Queue) -> None:
    await send_all(answers, 1)
    stop, started, proceed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        started.set()
        await proceed.wait()
        await delivery.acknowledge()

    pool = asyncio.create_task(consumer_of(source, answers, handler=handle).run(stop))
    await started.wait()
    stop.set()
    done, _ = await asyncio.wait([pool], timeout=0)
    assert not done
    proceed.set()
    await pool
    assert await answers.receive(limit=1, wait_s=0) == []


async def test_a_failing_handler_leaves_its_message_and_the_pool_goes_on(
    source: Queue, answers: Queue, in_flight: Callable[[], Awaitable[int]]
) -> None:
    await send_all(answers, 2)
    stop = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        if delivery.message.body == "0":
            raise ValueError("a bug")
        await delivery.acknowledge()
        stop.set()

    with structlog.testing.capture_logs() as events:
        await consumer_of(source, answers, handler=handle).run(stop)
    assert [event["event"] for event in events] == ["message.handling_failed"]
    assert events[0]["exc_info"]
    assert await in_flight() == 1


async def test_a_message_that_cannot_be_handed_back_does_not_disturb_the_stop(
    aws_endpoint: str, wire: UnreliableAws, source: Queue, answers: Queue, task_queue: str
) -> None:
    stop = asyncio.Event()
    lost = Refusal(400, "com.amazonaws.sqs#MessageNotInflight")
    async with (
        unreliable_aws(aws_endpoint, lost) as way_back,
        AwsSession(region=REGION, endpoint_url=way_back.url) as aws,
    ):
        deaf = Queue(await aws.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        pool = asyncio.create_task(consumer_of(source, deaf).run(stop))
        await wire.arrived.wait()
        stop.set()
        await answers.send("late", {})
        with structlog.testing.capture_logs() as events:
            await pool
    assert way_back.calls == ["ChangeMessageVisibility"]
    assert [event["event"] for event in events] == ["message.handling_failed"]


async def test_a_receive_that_fails_for_now_is_repeated_after_a_pause(
    wire: UnreliableAws, source: Queue, answers: Queue
) -> None:
    await send_all(answers, 1)
    stop = asyncio.Event()
    wire.fates.append(THROTTLED)

    async def handle(delivery: Delivery) -> None:
        stop.set()

    with structlog.testing.capture_logs() as events:
        await consumer_of(source, answers, handler=handle).run(stop)
    assert wire.calls == ["ReceiveMessage"] * 2
    assert [event["event"] for event in events] == ["receive.failed"]
    assert 1.0 <= events[0]["retry_in_s"] <= 2.0


@pytest.mark.parametrize(
    ("between", "shortest_s", "longest_s"),
    [([], 2.0, 4.0), ([Fate.FORWARDED], 1.0, 2.0)],
    ids=["longer after another failure", "short again after a success"],
)
async def test_the_pause_grows_from_failure_to_failure(
    wire: UnreliableAws, source: Queue, answers: Queue, between: list[Fate], shortest_s: float, longest_s: float
) -> None:
    stop = asyncio.Event()
    wire.fates += [THROTTLED, *between, THROTTLED]
    with structlog.testing.capture_logs() as events:
        pool = asyncio.create_task(consumer_of(source, answers, wait_s=0).run(stop))
        await until(lambda: len(events) == 2)
        stop.set()
        await pool
    assert shortest_s <= events[1]["retry_in_s"] <= longest_s


async def test_a_stop_ends_the_pause_after_a_failed_receive(wire: UnreliableAws, source: Queue, answers: Queue) -> None:
    stop = asyncio.Event()
    wire.otherwise = THROTTLED
    with structlog.testing.capture_logs() as events:
        pool = asyncio.create_task(consumer_of(source, answers).run(stop))
        await until(lambda: len(events) == 1)
        stop.set()
        await pool
    assert wire.calls == ["ReceiveMessage"]


async def test_a_queue_that_refuses_ends_the_pool_with_the_refusal(
    wire: UnreliableAws, source: Queue, answers: Queue
) -> None:
    wire.fates.append(DENIED)
    with pytest.raises(PermanentAwsError) as failure:
        await consumer_of(source, answers).run(asyncio.Event())
    assert failure.value.code == "AccessDeniedException"
    assert wire.calls == ["ReceiveMessage"]


async def test_a_refusal_lets_the_other_slots_finish_what_they_hold(
    wire: UnreliableAws, source: Queue, answers: Queue
) -> None:
    await send_all(answers, 1)
    started, proceed = asyncio.Event(), asyncio.Event()
    finished: list[str] = []

    async def handle(delivery: Delivery) -> None:
        wire.otherwise = DENIED
        started.set()
        await proceed.wait()
        await delivery.acknowledge()
        finished.append(delivery.message.body)

    first = iter([True])

    async def gate() -> bool:
        if not next(first, False):
            await started.wait()
        return True

    pool = asyncio.create_task(consumer_of(source, answers, handler=handle, gate=gate, slots=2).run(asyncio.Event()))
    await started.wait()
    slots = [task for task in asyncio.all_tasks() if task.get_name().startswith("slot-")]
    refused, busy = await asyncio.wait(slots, return_when=asyncio.FIRST_COMPLETED)
    assert (len(refused), len(busy)) == (1, 1)
    proceed.set()
    with pytest.raises(PermanentAwsError):
        await pool
    assert finished == ["0"]
    assert wire.calls == ["ReceiveMessage"] * 2


async def test_a_handler_that_can_serve_no_message_hands_it_back_and_ends_the_pool(
    source: Queue, answers: Queue, in_flight: Callable[[], Awaitable[int]]
) -> None:
    """To go on would use up the receives of every message: then the dead-letter queue has them all."""
    await send_all(answers, 3)
    met: list[str] = []

    async def handle(delivery: Delivery) -> None:
        met.append(delivery.message.body)
        raise Unserviceable from PermanentAwsError("UpdateItem", "AccessDeniedException", "")

    with pytest.raises(Unserviceable):
        await consumer_of(source, answers, handler=handle).run(asyncio.Event())
    assert len(met) == 1
    assert len(await answers.receive(limit=10, wait_s=0)) == 2
    # Kept out of sight for a minute, far less than its visibility timeout of 300 s.
    assert await in_flight() == 3


async def test_a_cancelled_pool_leaves_no_slot_behind(source: Queue, answers: Queue) -> None:
    await send_all(answers, 1)
    started = asyncio.Event()
    ended: list[str] = []

    async def handle(delivery: Delivery) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(delivery.message.body)

    pool = asyncio.create_task(consumer_of(source, answers, handler=handle).run(asyncio.Event()))
    await started.wait()
    pool.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pool
    assert ended == ["0"]


async def test_a_delivery_is_extended_handed_back_and_acknowledged(answers: Queue) -> None:
    await answers.send("hello", {})
    (message,) = await answers.receive(limit=1, wait_s=0, visibility_s=30)
    delivery = Delivery(message, answers)
    await delivery.extend(300)
    assert await answers.receive(limit=1, wait_s=0) == []
    await delivery.hand_back()
    (message,) = await answers.receive(limit=1, wait_s=0)
    await Delivery(message, answers).acknowledge()
    with pytest.raises(ReceiptLost):
        await Delivery(message, answers).hand_back(delay_s=5)
