from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.endpoint.aws import Aws
from bench.http_server import Connection
from lib.asyncaws.session import AwsSession
from tests.conftest import REGION


class Endpoint:
    """AWS as the benchmarks have it, in this process."""

    def __init__(self, aws: Aws, url: str) -> None:
        self.aws = aws
        self.url = url
        self.queue_url = f"{url}/000000000000/tasks"

    @property
    def used(self) -> tuple[int, float, int]:
        """Items read, read units, write units, so far."""
        usage = self.aws.usage.values()
        return sum(u.items for u in usage), sum(u.read_units for u in usage), sum(u.write_units for u in usage)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    aws = Aws()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(aws.handle), "127.0.0.1", 0)
    async with server:
        yield Endpoint(aws, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.fixture
async def session(endpoint: Endpoint, aws_environment: None) -> AsyncIterator[AwsSession]:
    async with AwsSession(region=REGION, endpoint_url=endpoint.url) as session:
        yield session
