"""Emulated AWS for every test that wants it: one moto server per test process, names of their own per test."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from moto.server import ThreadedMotoServer

from lib.asyncaws.session import BACKGROUND, AwsSession
from lib.gputask.schema import definition
from services.devstack.emulator.comparisons import compare_types_first
from tests.ministack import ministack

REGION = "us-east-1"

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, the longest at the head of each worker's part: the others go on meanwhile."""
    long = sorted((item for item in items if _minutes(item)), key=_minutes, reverse=True)
    others = iter([item for item in items if not _minutes(item)])
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        # `--dist worksteal` gives each worker an equal part of the list to begin with.
        ordered += long[worker::workers]
        ordered += itertools.islice(others, (worker + 1) * len(items) // workers - len(ordered))
    items[:] = ordered


def _minutes(item: pytest.Item) -> float:
    marker = item.get_closest_marker("long")
    return float(marker.kwargs["minutes"]) if marker else 0.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked so runs on several emulators: a test that passes on one may have learnt that one's mistakes."""
    emulators = metafunc.definition.get_closest_marker("emulators")
    if emulators is not None and "aws_endpoint" in metafunc.fixturenames:
        metafunc.parametrize("aws_endpoint", emulators.args, indirect=True, scope="session")


@pytest.fixture(scope="session")
def aws_endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulated AWS."""
    if getattr(request, "param", "moto") == "ministack":
        with ministack(tmp_path_factory.mktemp("ministack")) as address:
            yield address
        return
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    compare_types_first()
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
    await client.create_table(TableName=name, **definition())
    return name


@pytest.fixture
async def task_queue(aws: AwsSession) -> str:
    """The URL of a new, empty task queue."""
    client = await aws.sqs(BACKGROUND)
    answer = await client.create_queue(QueueName=f"tasks-{next(_numbers)}", Attributes={"VisibilityTimeout": "300"})
    return answer["QueueUrl"]
