import json
import time
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
