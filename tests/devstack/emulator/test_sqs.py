import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.devstack.emulated import Emulated


def test_a_long_poll_ends_when_a_message_comes(emulated: Emulated) -> None:
    queue_url = emulated.new_queue()
    with ThreadPoolExecutor(1) as poller:
        began_s = time.monotonic()
        poll = poller.submit(emulated.sqs.receive_message, QueueUrl=queue_url, WaitTimeSeconds=15)
        emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="work")
        assert poll.result(15)["Messages"][0]["Body"] == "work"
    assert time.monotonic() - began_s < 10


def test_a_long_poll_of_an_empty_queue_comes_back_empty(emulated: Emulated) -> None:
    answer = emulated.sqs.receive_message(QueueUrl=emulated.new_queue(), WaitTimeSeconds=1)
    assert "Messages" not in answer


def test_the_queue_says_how_long_to_poll_if_the_call_does_not(emulated: Emulated) -> None:
    queue_url = emulated.new_queue(ReceiveMessageWaitTimeSeconds="1")
    began_s = time.monotonic()
    emulated.sqs.receive_message(QueueUrl=queue_url)
    assert time.monotonic() - began_s >= 1


def test_a_long_poll_sees_a_message_whose_visibility_ran_out(emulated: Emulated) -> None:
    queue_url = emulated.new_queue(VisibilityTimeout="1")
    emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="work")
    emulated.sqs.receive_message(QueueUrl=queue_url)
    again = emulated.sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=10)
    assert again["Messages"][0]["Body"] == "work"


def test_of_many_receivers_each_message_reaches_one(emulated: Emulated) -> None:
    queue_url = emulated.new_queue(VisibilityTimeout="300")
    entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(10)]
    for _ in range(6):
        emulated.sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)  # type: ignore[arg-type]

    def receive_all(_receiver: int) -> list[str]:
        seen: list[str] = []
        while messages := emulated.sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=3).get("Messages"):
            seen.extend(message["MessageId"] for message in messages)
        return seen

    with ThreadPoolExecutor(6) as receivers:
        deliveries = Counter(message for seen in receivers.map(receive_all, range(6)) for message in seen)
    assert len(deliveries) == 60
    assert set(deliveries.values()) == {1}


def test_a_message_received_too_often_is_moved_to_the_dead_letter_queue(emulated: Emulated) -> None:
    dead_url = emulated.new_queue()
    arn = emulated.sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    queue_url = emulated.new_queue(VisibilityTimeout="0", RedrivePolicy=redrive)
    emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="poison")
    for _ in range(2):
        assert emulated.sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=5)["Messages"]
    assert "Messages" not in emulated.sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1)
    assert emulated.sqs.receive_message(QueueUrl=dead_url)["Messages"][0]["Body"] == "poison"


def test_an_unknown_queue_is_refused(emulated: Emulated) -> None:
    with pytest.raises(ClientError, match="NonExistentQueue"):
        emulated.sqs.receive_message(QueueUrl=f"{emulated.endpoint_url}/123456789012/nowhere", WaitTimeSeconds=1)


def test_depth_and_messages_sent_are_told_without_an_aws_call(emulated: Emulated) -> None:
    queue_url = emulated.new_queue()
    emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="one")
    emulated.sqs.send_message_batch(
        QueueUrl=queue_url, Entries=[{"Id": "a", "MessageBody": "two"}, {"Id": "b", "MessageBody": "three"}]
    )
    emulated.sqs.receive_message(QueueUrl=queue_url)
    looks = emulated.attempted("sqs", "GetQueueAttributes")
    assert _depth(emulated, queue_url) == {"visible": 2, "in_flight": 1, "delayed": 0, "sent": 3}
    assert emulated.attempted("sqs", "GetQueueAttributes") == looks


def test_a_send_that_failed_was_not_sent(emulated: Emulated) -> None:
    queue_url = emulated.new_queue()
    emulated.order(service="sqs", action="SendMessage", mode="error", times=1)
    with pytest.raises(ClientError):
        emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="lost")
    assert _depth(emulated, queue_url)["sent"] == 0


def _depth(emulated: Emulated, queue_url: str) -> Any:
    return emulated.ask("GET", "/devstack/queues")[queue_url.rpartition("/")[2]]
