"""Emulated AWS with atomic conditional writes, and a Unified API that does as it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lib.asyncaws.session import AwsSession
from services.adapter.upstream import UnifiedApi as UnifiedApiClient
from services.adapter.upstream import open_session
from tests.adapter.adapter_process import Employer, employer
from tests.adapter.unified_api import UnifiedApi, unified_api
from tests.adapter.wire import Wire, wire_to
from tests.adapter.workplace import PATIENT, Workplace
from tests.conftest import REGION
from tests.devstack.emulated import emulator_process


@pytest.fixture(scope="session")
def aws_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Not moto alone, whose conditional writes have several winners: here workers race for tasks."""
    with emulator_process(tmp_path_factory.mktemp("emulator") / "emulator.log") as (emulated, _process):
        yield emulated.endpoint_url


@pytest.fixture
async def api() -> AsyncIterator[UnifiedApi]:
    """A Unified API that listens."""
    async with unified_api() as listening:
        yield listening


@pytest.fixture
async def client(api: UnifiedApi) -> AsyncIterator[UnifiedApiClient]:
    """The adapter's client of it."""
    async with open_session(api.url) as session:
        yield UnifiedApiClient(session)


@pytest.fixture
async def wire(aws_endpoint: str) -> AsyncIterator[Wire]:
    """The way to AWS, where a test can trouble it."""
    async with wire_to(aws_endpoint) as open_wire:
        yield open_wire


@pytest.fixture
async def aws(wire: Wire, aws_environment: None) -> AsyncIterator[AwsSession]:
    """Opens clients whose calls go by the wire."""
    async with AwsSession(region=REGION, endpoint_url=wire.url) as session:
        yield session


@pytest.fixture
async def place(aws: AwsSession, task_table: str) -> Workplace:
    """A new table, queue and dead-letter queue; a message goes there when it is received a sixth time."""
    sqs = await aws.sqs(PATIENT)
    name = f"tasks-{uuid4()}"
    dead_letter_url = (await sqs.create_queue(QueueName=f"{name}-dead"))["QueueUrl"]
    asked = await sqs.get_queue_attributes(QueueUrl=dead_letter_url, AttributeNames=["QueueArn"])
    redrive = {"deadLetterTargetArn": asked["Attributes"]["QueueArn"], "maxReceiveCount": 5}
    queue_url = (await sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)}))["QueueUrl"]
    return Workplace(
        dynamodb=await aws.dynamodb(PATIENT),
        sqs=sqs,
        table_name=task_table,
        queue_url=queue_url,
        dead_letter_url=dead_letter_url,
    )


@pytest.fixture
async def employment(place: Workplace, wire: Wire, api: UnifiedApi, tmp_path: Path) -> AsyncIterator[Employer]:
    """Starts adapters as processes."""
    async with employer(place, wire, api, tmp_path) as employing:
        yield employing
