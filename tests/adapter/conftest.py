"""Emulated AWS with atomic conditional writes, and a Unified API that does as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.adapter.unified_api import UnifiedApi, unified_api
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
