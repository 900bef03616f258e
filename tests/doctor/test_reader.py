"""Reads over HTTP: what is refused, what fails how, and what the answers tell of the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from services.devstack.surroundings import REGION, surroundings
from services.doctor.reader import ACTIONS, NotThereError, Reader, ReadError
from tests.doctor.world import EmulatedAws


@pytest.fixture
def environment(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in surroundings(aws.endpoint_url).items():
        monkeypatch.setenv(name, value)


@contextmanager
def opened(clock: Callable[[], float] = time.time) -> Iterator[Reader]:
    reader = Reader(region=REGION, clock=clock)
    try:
        yield reader
    finally:
        reader.close()


@pytest.fixture
def reader(environment: None) -> Iterator[Reader]:
    with opened() as reader:
        yield reader


def test_nothing_but_reading_is_allowed() -> None:
    verbs = ("Get", "Describe", "List", "Query")
    assert [action for action in ACTIONS if not action.partition(":")[2].startswith(verbs)] == []


def test_what_is_not_listed_is_not_called(reader: Reader) -> None:
    with pytest.raises(ValueError, match="sqs:PurgeQueue is none of ACTIONS"):
        reader.read("sqs:PurgeQueue", QueueUrl="https://sqs.us-east-1.amazonaws.com/123456789012/q")


@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        ("dynamodb:DescribeTable", {"TableName": "none"}),
        ("dynamodb:DescribeContinuousBackups", {"TableName": "none"}),
        ("sqs:GetQueueAttributes", {"QueueUrl": f"http://127.0.0.1/{'1' * 12}/none", "AttributeNames": ["All"]}),
        ("lambda:GetFunctionConfiguration", {"FunctionName": "none"}),
        ("lambda:GetPolicy", {"FunctionName": "none"}),
        ("events:DescribeRule", {"Name": "none"}),
        ("ec2:DescribeInstances", {"InstanceIds": ["i-0123456789abcdef0"]}),
    ],
)
def test_what_does_not_exist_is_not_there(reader: Reader, action: str, parameters: dict[str, object]) -> None:
    with pytest.raises(NotThereError):
        reader.read(action, **parameters)


@pytest.mark.parametrize(
    ("service", "action", "code", "parameters"),
    [
        ("dynamodb", "DescribeTable", "AccessDeniedException", {"TableName": "t"}),
        ("ec2", "DescribeInstances", "UnauthorizedOperation", {}),
        ("sqs", "GetQueueAttributes", "AWS.SimpleQueueService.AccessDenied", {"QueueUrl": "http://127.0.0.1/1/q"}),
    ],
)
def test_a_denial_names_the_permission(
    aws: EmulatedAws, reader: Reader, service: str, action: str, code: str, parameters: dict[str, object]
) -> None:
    aws.deny(service, action, code)
    with pytest.raises(ReadError) as raised:
        reader.read(f"{service}:{action}", **parameters)
    assert str(raised.value) == f"{service}:{action}: {code.rpartition('.')[2]}: Ordered by the test."
    assert raised.value.fix == f"allow {service}:{action} to whoever runs the doctor"


def test_credentials_that_are_over_are_to_be_renewed(aws: EmulatedAws, reader: Reader) -> None:
    aws.deny("dynamodb", "DescribeTable", "ExpiredTokenException")
    with pytest.raises(ReadError) as raised:
        reader.read("dynamodb:DescribeTable", TableName="t")
    assert "aws sso login" in raised.value.fix


def test_anything_else_is_told_in_awss_words(aws: EmulatedAws, reader: Reader) -> None:
    aws.deny("dynamodb", "DescribeTable", "SomethingNewException")
    with pytest.raises(ReadError, match=r"^dynamodb:DescribeTable: SomethingNewException: Ordered by"):
        reader.read("dynamodb:DescribeTable", TableName="t")


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "nonsense", "AWS_ENDPOINT_URL"),
        ("AWS_PROFILE", "misspelt", "AWS_PROFILE"),
    ],
)
def test_wrong_surroundings_are_no_traceback(
    environment: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str, fix: str
) -> None:
    monkeypatch.setenv(name, value)
    with opened() as reader, pytest.raises(ReadError) as raised:
        reader.read("sts:GetCallerIdentity")
    assert fix in raised.value.fix


def test_no_credentials_are_no_traceback(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with opened() as reader, pytest.raises(ReadError) as raised:
        reader.read("sts:GetCallerIdentity")
    assert "aws sso login" in raised.value.fix


@pytest.mark.parametrize("off_s", [0, 700, -40])
def test_the_clock_is_compared_with_awss(environment: None, off_s: float) -> None:
    with opened(lambda: time.time() + off_s) as reader:
        assert reader.skew_s is None
        reader.read("sts:GetCallerIdentity")
        assert reader.skew_s == pytest.approx(off_s, abs=3)
        assert reader.now() == pytest.approx(time.time(), abs=3)


def test_a_refusal_is_dated_as_well(aws: EmulatedAws, environment: None) -> None:
    aws.deny("dynamodb", "DescribeTable", "InvalidSignatureException")
    with opened(lambda: time.time() + 700) as reader:
        with pytest.raises(ReadError):
            reader.read("dynamodb:DescribeTable", TableName="t")
        assert reader.skew_s == pytest.approx(700, abs=3)
