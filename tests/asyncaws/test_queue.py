from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

import pytest

from lib.asyncaws.errors import AuthenticationAwsError, AwsError, PermanentAwsError, ReceiptLost, TransientAwsError
from lib.asyncaws.queue import MAX_VISIBILITY_S, Message, Queue
from lib.asyncaws.session import BACKGROUND, AwsSession, CallPolicy
from tests.asyncaws.unreliable import Abridged, Doom, Fate, Refusal, UnreliableAws, unreliable_aws
from tests.conftest import REGION

pytestmark = pytest.mark.emulators("moto", "ministack")


@pytest.fixture
async def queue(aws: AwsSession, task_queue: str) -> Queue:
    return Queue(await aws.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)


async def receive_one(queue: Queue) -> Message:
    (message,) = await queue.receive(limit=1, wait_s=0)
    return message


async def test_a_message_arrives_as_it_was_sent(queue: Queue) -> None:
    await queue.send('{"a": "\\ud83d\\ude00"}', {"request_id": "r-1", "other": "ä"})
    message = await receive_one(queue)
    assert message.body == '{"a": "\\ud83d\\ude00"}'
    assert message.attributes == {"request_id": "r-1", "other": "ä"}
    assert message.receive_count == 1
    assert message.id
    assert message.receipt


async def test_a_message_without_attributes_has_none(queue: Queue) -> None:
    await queue.send("hello", {})
    assert (await receive_one(queue)).attributes == {}


async def test_many_messages_at_once_share_calls(aws_endpoint: str, aws_environment: None, task_queue: str) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        queue = Queue(await session.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        await asyncio.gather(*(queue.send(str(number), {"n": str(number)}) for number in range(30)))
        # Each of the four that return first makes room for what has gathered meanwhile, ten at the most.
        assert wire.calls[:4] == ["SendMessage"] * 4
        assert wire.calls[4:] == ["SendMessageBatch"] * 3
    received: list[Message] = []
    async with AwsSession(region=REGION, endpoint_url=aws_endpoint) as session:
        queue = Queue(await session.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        while messages := await queue.receive(limit=10, wait_s=0):
            received += messages
    assert sorted(int(message.body) for message in received) == list(range(30))
    assert all(message.attributes == {"n": message.body} for message in received)


async def test_large_messages_share_a_call_only_as_far_as_it_may_be_large(
    aws_endpoint: str, aws_environment: None, task_queue: str
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        queue = Queue(await session.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        large = "x" * 250_000
        await asyncio.gather(*(queue.send(large, {}) for _ in range(4 + 9)))
        assert sorted(len(body.get("Entries", [0])) for body in wire.bodies) == [1] * 4 + [1, 4, 4]


async def test_what_a_shared_send_left_out_is_sent_by_the_next_try(
    aws_endpoint: str, aws_environment: None, task_queue: str
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        twice = CallPolicy(total_s=60.0, read_timeout_s=30.0, attempts=2)
        queue = Queue(await session.sqs(twice), url=task_queue, policy=twice)
        wire.fates.extend([*[Fate.FORWARDED] * 4, Abridged(3)])
        await asyncio.gather(*(queue.send(str(number), {}) for number in range(10)))
        assert [len(body["Entries"]) for body in wire.bodies[4:]] == [6, 3]


async def test_a_message_that_is_left_out_each_time_fails_alone(
    aws_endpoint: str, aws_environment: None, task_queue: str
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        twice = CallPolicy(total_s=60.0, read_timeout_s=30.0, attempts=2)
        queue = Queue(await session.sqs(twice), url=task_queue, policy=twice)
        wire.fates.extend([*[Fate.FORWARDED] * 4, Abridged(4), Abridged(1)])
        sends = (queue.send(str(number), {}) for number in range(10))
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert results[:9] == [None] * 9
        assert isinstance(results[9], TransientAwsError)
        assert "InternalError" in str(results[9])


async def test_a_message_that_is_refused_for_good_does_not_stop_the_others(
    aws_endpoint: str, aws_environment: None, task_queue: str
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        queue = Queue(await session.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        wire.fates.extend([*[Fate.FORWARDED] * 4, Abridged(4, sender_fault=True, code="InvalidParameterValue")])
        sends = (queue.send(str(number), {}) for number in range(10))
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert results[:8] == [None] * 8
        assert all(isinstance(result, PermanentAwsError) for result in results[8:])
        assert wire.calls == ["SendMessage"] * 4 + ["SendMessageBatch"]


async def delete_ten(queue: Queue, wire: UnreliableAws, *fates: Doom) -> list[BaseException | None]:
    """Send, receive and delete ten messages; what becomes of each delete."""
    for number in range(10):
        await queue.send(str(number), {})
    messages: list[Message] = []
    while len(messages) < 10:
        messages += await queue.receive(limit=10, wait_s=0)
    wire.calls.clear()
    wire.bodies.clear()
    wire.fates.extend(fates)
    return await asyncio.gather(*(queue.delete(message.receipt) for message in messages), return_exceptions=True)


async def test_many_deletes_at_once_share_calls_and_one_alone_goes_alone(
    aws_endpoint: str, aws_environment: None, task_queue: str
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        queue = Queue(await session.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        assert await delete_ten(queue, wire) == [None] * 10
        assert wire.calls == ["DeleteMessage", "DeleteMessage", "DeleteMessageBatch"]
        assert (await queue.depth()).messages == 0

        await queue.send("one", {})
        wire.calls.clear()
        await queue.delete((await receive_one(queue)).receipt)
        assert wire.calls == ["ReceiveMessage", "DeleteMessage"]


async def test_a_delete_that_is_left_out_is_tried_again_and_fails_alone(
    aws_endpoint: str, aws_environment: None, task_queue: str
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        twice = CallPolicy(total_s=60.0, read_timeout_s=30.0, attempts=2)
        queue = Queue(await session.sqs(twice), url=task_queue, policy=twice)
        results = await delete_ten(queue, wire, *[Fate.FORWARDED] * 2, Abridged(5), Abridged(1))
        assert [len(body["Entries"]) for body in wire.bodies[2:]] == [8, 3]
        assert results[:8] == [None] * 8
        assert all(isinstance(result, TransientAwsError) for result in results[8:])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ReceiptHandleIsInvalid", ReceiptLost),
        ("AWS.SimpleQueueService.MessageNotInflight", ReceiptLost),
        ("AccessDeniedException", PermanentAwsError),
        ("ExpiredTokenException", AuthenticationAwsError),
        ("RequestThrottled", TransientAwsError),
    ],
)
async def test_what_a_batch_refuses_is_named_as_a_call_of_its_own_would_name_it(
    aws_endpoint: str, aws_environment: None, task_queue: str, code: str, error: type[AwsError]
) -> None:
    once = CallPolicy(total_s=60.0, read_timeout_s=30.0)
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        queue = Queue(await session.sqs(once), url=task_queue, policy=once)
        results = await delete_ten(queue, wire, *[Fate.FORWARDED] * 2, Abridged(5, sender_fault=True, code=code))
        assert results[:7] == [None] * 7
        assert {type(result) for result in results[7:]} == {error}


async def test_only_attributes_of_text_are_read(aws: AwsSession, queue: Queue, task_queue: str) -> None:
    client = await aws.sqs(BACKGROUND)
    await client.send_message(
        QueueUrl=task_queue,
        MessageBody="hello",
        MessageAttributes={
            "blob": {"DataType": "Binary", "BinaryValue": b"\x00"},
            "text": {"DataType": "String", "StringValue": "x"},
        },
    )
    assert (await receive_one(queue)).attributes == {"text": "x"}


async def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert await queue.receive(limit=10, wait_s=0) == []


async def test_no_more_is_received_than_was_asked_for(queue: Queue) -> None:
    for number in range(5):
        await queue.send(str(number), {})
    assert len(await queue.receive(limit=2, wait_s=0)) == 2
    assert len(await queue.receive(limit=10, wait_s=0)) == 3


async def test_a_received_message_is_invisible_until_it_is_given_back(queue: Queue) -> None:
    await queue.send("hello", {})
    message = await receive_one(queue)
    assert await queue.receive(limit=1, wait_s=0) == []
    await queue.set_visibility(message.receipt, 0)
    assert (await receive_one(queue)).receive_count == 2


async def test_a_receive_may_say_how_long_a_message_is_invisible(queue: Queue) -> None:
    await queue.send("hello", {})
    (first,) = await queue.receive(limit=1, wait_s=0, visibility_s=0)
    (again,) = await queue.receive(limit=1, wait_s=0, visibility_s=300)
    assert again.id == first.id
    assert await queue.receive(limit=1, wait_s=0) == []


async def test_a_deleted_message_does_not_come_back(queue: Queue) -> None:
    await queue.send("hello", {})
    message = await receive_one(queue)
    await queue.set_visibility(message.receipt, 0)
    await queue.delete(message.receipt)
    assert await queue.receive(limit=1, wait_s=0) == []


async def test_the_receipt_of_a_deleted_message_is_lost(queue: Queue) -> None:
    await queue.send("hello", {})
    message = await receive_one(queue)
    await queue.delete(message.receipt)
    with pytest.raises(ReceiptLost):
        await queue.set_visibility(message.receipt, 300)


async def test_the_receipt_of_a_message_that_is_visible_again_is_lost(
    aws_endpoint: str, aws_environment: None, task_queue: str
) -> None:
    """The emulator extends it all the same, AWS does not."""
    refusal = Refusal(400, "com.amazonaws.sqs#MessageNotInflight")
    async with unreliable_aws(aws_endpoint, refusal) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as aws:
        queue = Queue(await aws.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        with pytest.raises(ReceiptLost):
            await queue.set_visibility("handle", 300)


@pytest.mark.emulators("moto")  # MiniStack extends for ever
async def test_the_receipt_of_a_message_whose_twelve_hours_are_over_is_lost(queue: Queue) -> None:
    """12 h in total, and some milliseconds of them are gone."""
    await queue.send("hello", {})
    message = await receive_one(queue)
    with pytest.raises(ReceiptLost):
        await queue.set_visibility(message.receipt, MAX_VISIBILITY_S)


async def test_a_receipt_nobody_gave_is_lost(queue: Queue) -> None:
    with pytest.raises(ReceiptLost):
        await queue.set_visibility("no-such-handle", 300)


@pytest.mark.parametrize(("asked_s", "sent_s"), [(-5, 0), (0, 0), (300, 300), (43_200, 43_200), (50_000, 43_200)])
async def test_a_visibility_is_kept_within_what_sqs_takes(
    aws_endpoint: str, aws_environment: None, task_queue: str, asked_s: int, sent_s: int
) -> None:
    async with unreliable_aws(aws_endpoint) as wire, AwsSession(region=REGION, endpoint_url=wire.url) as session:
        queue = Queue(await session.sqs(BACKGROUND), url=task_queue, policy=BACKGROUND)
        with pytest.raises(ReceiptLost):
            await queue.set_visibility("no-such-handle", asked_s)
        assert wire.bodies[-1]["VisibilityTimeout"] == sent_s


async def test_a_queue_that_can_be_asked_passes_its_check(queue: Queue) -> None:
    await queue.check()


async def test_a_queue_that_is_not_there_fails_its_check(aws: AwsSession, task_queue: str) -> None:
    queue = Queue(await aws.sqs(BACKGROUND), url=f"{task_queue}-not", policy=BACKGROUND)
    with pytest.raises(PermanentAwsError) as failure:
        await queue.check()
    assert failure.value.code == "NonExistentQueue"


async def test_a_fifo_queue_fails_its_check(aws: AwsSession) -> None:
    client = await aws.sqs(BACKGROUND)
    name = f"tasks-{uuid4().hex}.fifo"
    url = (await client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"}))["QueueUrl"]
    with pytest.raises(PermanentAwsError, match="a standard queue is needed"):
        await Queue(client, url=url, policy=BACKGROUND).check()


class Garbled:
    """Answers a receive with something that is no list of messages."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    async def receive_message(self, **_: Any) -> Any:
        return {"ResponseMetadata": {"RequestId": "r"}, "Messages": self._messages}


@pytest.mark.parametrize(
    "messages",
    [7, ["x"], [{"Body": "b", "ReceiptHandle": "r"}]],
    ids=["no list", "no message", "a message without an id"],
)
async def test_an_answer_that_makes_no_sense_is_none(messages: Any) -> None:
    queue = Queue(cast("Any", Garbled(messages)), url="http://queue", policy=BACKGROUND)
    with pytest.raises(TransientAwsError, match="Garbled"):
        await queue.receive(limit=1, wait_s=0)
