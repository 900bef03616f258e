"""Whole systems for tests: each test starts its own, with real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.devstack.options import StackOptions
from services.devstack.stack import Stack
from tests.system.client import Client

System = Callable[..., AbstractAsyncContextManager[tuple[Stack, Client]]]


@pytest.fixture
def system(tmp_path: Path) -> System:
    """Starts a stack and a client for it: `async with system(scale=60) as (stack, client)`."""

    @asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[tuple[Stack, Client]]:
        options.setdefault("log_dir", tmp_path / "logs")
        options["upstream_env"] = {"STEP_S": "0.2", **options.get("upstream_env", {})}
        async with Stack(StackOptions(**options)) as stack, aiohttp.ClientSession(stack.base_url) as http:
            client = Client(stack, http)
            await client.upload_samples()
            yield stack, client

    return start
