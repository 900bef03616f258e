"""Emulated AWS for every test that wants it: one moto server per test process, names of their own per test."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from moto.server import ThreadedMotoServer

from lib.asyncaws.session import BACKGROUND, AwsSession

REGION = "us-east-1"

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes is each worker's first test: it mostly waits, and the other workers go on meanwhile."""
    long = [item for item in items if item.get_closest_marker("long")]
    ordered = [item for item in items if not item.get_closest_marker("long")]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for place, item in enumerate(long):
        # `--dist worksteal` gives each worker an equal part of the list to begin with.
        ordered.insert(place * len(items) // workers if place < workers else 1, item)
    items[:] = ordered


@pytest.fixture(scope="session")
def aws_endpoint() -> Iterator[str]:
    """The address of an emulated AWS."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that open nothing; no configuration of the machine is read."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
async def aws(aws_endpoint: str, aws_environment: None) -> AsyncIterator[AwsSession]:
    """Opens clients for the emulated AWS."""
    async with AwsSession(region=REGION, endpoint_url=aws_endpoint) as session:
        yield session


@pytest.fixture
async def task_table(aws: AwsSession) -> str:
    """The name of a new, empty task table."""
    client = await aws.dynamodb(BACKGROUND)
    name = f"tasks-{next(_numbers)}"
    await client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "task_id", "AttributeType": "S"},
            {"AttributeName": "status", "AttributeType": "S"},
            {"AttributeName": "created_at", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "status-created_at-index",
                "KeySchema": [
                    {"AttributeName": "status", "KeyType": "HASH"},
                    {"AttributeName": "created_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": _PROJECTED},
            }
        ],
    )
    return name


@pytest.fixture
async def task_queue(aws: AwsSession) -> str:
    """The URL of a new, empty task queue."""
    client = await aws.sqs(BACKGROUND)
    answer = await client.create_queue(QueueName=f"tasks-{next(_numbers)}", Attributes={"VisibilityTimeout": "300"})
    return answer["QueueUrl"]


_PROJECTED = [
    "updated_at",
    "job_type",
    "client_id",
    "queued_at",
    "sends",
    "claimed_at",
    "lease_until",
    "worker",
    "attempt",
    "comfy_job_id",
    "finished_at",
    "error_code",
]
