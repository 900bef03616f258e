from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from lib.asyncaws.errors import TransientAwsError
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import AwsSession, CallPolicy
from lib.asyncaws.table import Table
from lib.gputask.schema import TABLE_KEY
from services.orchestrator.dependencies import Dependencies, Dependency
from tests.conftest import REGION
from tests.orchestrator.aws_world import AwsWorld

ONCE = CallPolicy(total_s=30.0, read_timeout_s=25.0)
# Nobody in these tests waits so long.
NEVER_S = 60.0


@pytest.fixture
async def nowhere(aws_environment: None) -> AsyncIterator[AwsSession]:
    """Opens clients that reach nobody, as those of a process whose background has lost its credentials."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with AwsSession(region=REGION, endpoint_url=url) as session:
            yield session


async def test_a_client_of_the_background_that_reaches_nobody_means_not_ready(
    world: AwsWorld, nowhere: AwsSession
) -> None:
    dead_table = Table(await nowhere.dynamodb(ONCE), name=world.table_name, key=TABLE_KEY, policy=ONCE)
    dead_queue = Queue(await nowhere.sqs(ONCE), url=world.queue_url, policy=ONCE)
    with capture_logs():
        for tables, queues, ready in (
            ((world.table, world.table), (world.queue, world.dead_letters), {"table": True, "queue": True}),
            ((world.table, dead_table), (world.queue, world.dead_letters), {"table": False, "queue": True}),
            ((world.table, world.table), (world.queue, dead_queue), {"table": True, "queue": False}),
        ):
            dependencies = Dependencies({"table": tables, "queue": queues}, wait_s=NEVER_S)
            assert await dependencies.check() == ready


class Patient:
    """A client that answers when a test says so."""

    def __init__(self) -> None:
        self.looks = 0
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def check(self) -> None:
        self.looks += 1
        await asyncio.shield(self.answer)


async def test_a_look_of_a_patient_client_goes_on_and_the_last_one_counts_meanwhile() -> None:
    client = Patient()
    client.answer.set_result(None)
    dependency = Dependency(client, wait_s=0.01)
    assert await dependency.answers()

    client.answer = asyncio.get_running_loop().create_future()
    assert [await dependency.answers() for _ in range(3)] == [True] * 3
    assert client.looks == 2  # the second is not cut off, and nobody begins a third beside it

    client.answer.set_exception(TransientAwsError("GetItem", "Timeout", "no answer within 30 s"))
    with capture_logs() as events:
        assert not await dependency.answers()
    assert [event["event"] for event in events] == ["readiness.dependency_failed"]


async def test_what_has_never_answered_is_not_ready() -> None:
    client = Patient()
    dependency = Dependency(client, wait_s=0.01)
    assert not await dependency.answers()
    client.answer.set_result(None)
    assert await dependency.answers()


async def test_a_bug_in_a_look_is_not_taken_for_an_answer() -> None:
    client = Patient()
    client.answer.set_exception(RuntimeError("a bug"))
    with pytest.raises(RuntimeError):
        await Dependency(client, wait_s=NEVER_S).answers()
