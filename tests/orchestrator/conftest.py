"""Emulated AWS in a process of its own: its writes are atomic, EC2 takes its time, and failures can be ordered."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from lib.asyncaws.session import AwsSession
from services.devstack import leash
from services.devstack.emulator.client import EmulatorClient
from services.devstack.surroundings import REGION, surroundings
from tests.orchestrator.aws_world import AwsWorld, Gpu, SharedClients, new_gpu, new_world

_START_LIMIT_S = 60
# Stopping lasts until a test says that the machine has halted.
_OPTIONS = ("--pending-s=0.3", "--power-cut-s=600")


@pytest.fixture(scope="session")
def aws_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The emulator's address, for the fixtures of the whole suite, too."""
    log_path = tmp_path_factory.mktemp("emulator") / "emulator.log"
    command = [sys.executable, leash.__file__, str(os.getpid()), sys.executable, "-m", "services.devstack.emulator"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, *_OPTIONS], env=surroundings("http://unused"), stdout=subprocess.PIPE, stderr=log
        )
    with process:
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], _START_LIMIT_S)[0], "the emulator said nothing"
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def session(aws_endpoint: str) -> AwsSession:
    """Serves all tests: reading AWS's descriptions of its services takes longer than most of them."""
    return SharedClients(region=REGION, endpoint_url=aws_endpoint)


@pytest.fixture
async def aws(session: AwsSession, aws_environment: None) -> AsyncIterator[AwsSession]:
    """The session without clients; those opened by a test are closed after it."""
    async with session:
        yield session


@pytest.fixture
async def world(aws_endpoint: str, aws: AwsSession, task_table: str, task_queue: str) -> AsyncIterator[AwsWorld]:
    """Resources of this test's own in an AWS without failures, which is left without failures."""
    async with EmulatorClient(aws_endpoint) as emulator:
        await emulator.clear_faults()
        yield await new_world(aws, emulator, endpoint_url=aws_endpoint, table_name=task_table, queue_url=task_queue)
        await emulator.clear_faults()


@pytest.fixture
async def gpu(aws: AwsSession, world: AwsWorld) -> Gpu:
    """A stopped instance of this test's own."""
    return await new_gpu(aws, world.emulator, endpoint_url=world.endpoint_url)
