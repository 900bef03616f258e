"""Requests with one Idempotency-Key in the same millisecond: the failing one leaves the other's promise alone."""

from __future__ import annotations

import asyncio

import pytest

from lib.asyncaws.session import AwsSession
from services.devstack.emulator.faults import Mode
from services.orchestrator.errors import Unavailable
from tests.orchestrator.aws_world import AwsWorld, Clock
from tests.orchestrator.test_submission import PATIENCE, PATIENT, Front, path_of


@pytest.fixture
async def twins(aws: AwsSession, world: AwsWorld) -> tuple[Front, Front]:
    path = await path_of(aws, world, PATIENT)
    one, other = Front(path, Clock()), Front(path, Clock(), limits=PATIENCE | {"budget_s": 2})
    other.clock.now = one.clock.now
    return one, other


async def test_a_request_that_cannot_announce_its_message_does_not_delete_the_task_it_found(
    world: AwsWorld, twins: tuple[Front, Front]
) -> None:
    one, other = twins
    accepted = await one.submit(key="k")
    await world.fail("dynamodb", Mode.ERROR, "UpdateItem")
    with pytest.raises(Unavailable):
        await other.submit(key="k")
    assert await world.tasks.get(accepted.task_id) is not None


async def test_a_request_whose_create_is_never_answered_does_not_delete_the_task_that_is_there(
    world: AwsWorld, twins: tuple[Front, Front]
) -> None:
    one, other = twins
    accepted = await one.submit(key="k")
    await world.fail("dynamodb", Mode.HANG, "PutItem")
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await other.submit(key="k")
    assert await world.tasks.get(accepted.task_id) is not None
