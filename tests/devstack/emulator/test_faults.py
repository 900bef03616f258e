import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests.devstack.emulated import Emulated, poll_until

CALLS: dict[str, Callable[[Emulated], object]] = {
    "dynamodb": lambda emulated: emulated.dynamodb.list_tables(),
    "sqs": lambda emulated: emulated.sqs.list_queues(),
    "ec2": lambda emulated: emulated.ec2.describe_instances(),
    "s3": lambda emulated: emulated.s3.list_buckets(),
}


@pytest.mark.parametrize(
    ("service", "mode", "code", "status"),
    [
        ("dynamodb", "error", "InternalServerError", 500),
        ("sqs", "error", "InternalFailure", 500),
        ("ec2", "error", "Unavailable", 503),
        ("s3", "error", "InternalError", 500),
        ("dynamodb", "throttle", "ThrottlingException", 400),
        ("sqs", "throttle", "RequestThrottled", 400),
        ("ec2", "throttle", "RequestLimitExceeded", 503),
        ("s3", "throttle", "SlowDown", 503),
    ],
)
def test_a_failing_service_answers_as_the_real_one_does(
    emulated: Emulated, service: str, mode: str, code: str, status: int
) -> None:
    emulated.order(service=service, mode=mode)
    with pytest.raises(ClientError) as failure:
        CALLS[service](emulated)
    assert failure.value.response["Error"]["Code"] == code
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize("service", CALLS)
def test_a_failure_concerns_its_own_service_until_it_is_cleared(emulated: Emulated, service: str) -> None:
    emulated.order(service=service, mode="error")
    for other in CALLS.keys() - {service}:
        CALLS[other](emulated)
    emulated.ask("DELETE", f"/devstack/faults?service={service}")
    CALLS[service](emulated)


def test_clearing_one_service_leaves_the_others_failing(emulated: Emulated) -> None:
    emulated.order(service="sqs", mode="error")
    emulated.order(service="dynamodb", mode="error")
    emulated.ask("DELETE", "/devstack/faults?service=sqs")
    with pytest.raises(ClientError):
        CALLS["dynamodb"](emulated)


def test_a_failure_of_one_action_spares_the_others(emulated: Emulated) -> None:
    queue_url = emulated.new_queue()
    emulated.order(service="sqs", action="SendMessage", mode="error", code="AccessDenied")
    emulated.sqs.receive_message(QueueUrl=queue_url)
    with pytest.raises(ClientError, match="AccessDenied"):
        emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="refused")


def test_a_failure_ends_with_its_seconds(emulated: Emulated) -> None:
    emulated.order(service="sqs", mode="error", seconds=0.3)
    with pytest.raises(ClientError):
        CALLS["sqs"](emulated)
    poll_until(lambda: emulated.ask("GET", "/devstack/faults") == [], limit_s=5)
    CALLS["sqs"](emulated)


def test_a_hanging_call_is_answered_when_the_failure_is_cleared_and_did_nothing(emulated: Emulated) -> None:
    table = emulated.new_table()
    emulated.order(service="dynamodb", action="PutItem", mode="hang")
    written = emulated.attempted("dynamodb", "PutItem")
    with ThreadPoolExecutor(1) as writer:
        write = writer.submit(emulated.dynamodb.put_item, TableName=table, Item={"task_id": {"S": "a"}})
        poll_until(lambda: emulated.attempted("dynamodb", "PutItem") > written, limit_s=10)
        assert not write.done()
        emulated.ask("DELETE", "/devstack/faults")
        with pytest.raises(ClientError, match="InternalServerError"):
            write.result(10)
    assert "Item" not in emulated.dynamodb.get_item(TableName=table, Key={"task_id": {"S": "a"}})


def test_of_several_calls_only_the_ordered_number_hangs(emulated: Emulated) -> None:
    emulated.order(service="sqs", mode="hang", times=1)
    asked = emulated.attempted("sqs", "ListQueues")
    with ThreadPoolExecutor(1) as asker:
        first = asker.submit(CALLS["sqs"], emulated)
        poll_until(lambda: emulated.attempted("sqs", "ListQueues") > asked, limit_s=10)
        CALLS["sqs"](emulated)
        assert not first.done()
        emulated.ask("DELETE", "/devstack/faults")
        assert first.exception(10) is not None


def test_a_slow_service_answers_late(emulated: Emulated) -> None:
    emulated.order(service="dynamodb", mode="slow", delay_s=0.5)
    began_s = time.monotonic()
    CALLS["dynamodb"](emulated)
    assert time.monotonic() - began_s >= 0.5


def test_a_dropped_answer_leaves_the_effect(emulated: Emulated) -> None:
    queue_url = emulated.new_queue()
    emulated.order(service="sqs", action="SendMessage", mode="drop", times=1)
    with pytest.raises(HTTPClientError):
        emulated.sqs.send_message(QueueUrl=queue_url, MessageBody="sent all the same")
    received = emulated.sqs.receive_message(QueueUrl=queue_url)
    assert received["Messages"][0]["Body"] == "sent all the same"


@pytest.mark.parametrize(
    "order",
    [{}, {"service": "sqs"}, {"service": "sqs", "mode": "sulk"}, {"service": "sqs", "mode": "hang", "times": "x"}],
)
def test_an_order_that_means_nothing_is_refused(emulated: Emulated, order: dict[str, object]) -> None:
    assert emulated.ask("POST", "/devstack/faults", order)["status"] == 400
    assert emulated.ask("GET", "/devstack/faults") == []
