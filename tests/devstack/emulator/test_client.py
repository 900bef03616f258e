import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from services.devstack.emulator.client import EmulatorClient
from services.devstack.emulator.faults import Fault, Mode
from services.devstack.power import State
from tests.devstack.emulated import Emulated

ANSWER_LIMIT_S = 0.2


@pytest.fixture
async def silent_url() -> AsyncIterator[str]:
    """A server that accepts and says nothing."""
    connections = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in connections:
            writer.close()
            await writer.wait_closed()


async def test_an_answer_that_does_not_come_is_a_timeout(silent_url: str) -> None:
    async with EmulatorClient(silent_url, answer_limit_s=ANSWER_LIMIT_S) as emulator:
        with pytest.raises(TimeoutError):
            await emulator.calls()
        assert not await emulator.is_healthy()


async def test_a_cancellation_that_comes_with_the_timeout_is_not_taken_for_it(silent_url: str) -> None:
    async with EmulatorClient(silent_url, answer_limit_s=ANSWER_LIMIT_S) as emulator:
        asking = asyncio.create_task(emulator.calls())
        await asyncio.sleep(ANSWER_LIMIT_S / 2)
        asyncio.get_running_loop().call_later(ANSWER_LIMIT_S, asking.cancel)
        time.sleep(2 * ANSWER_LIMIT_S)  # noqa: ASYNC251 (a stalled loop finds both due at once)
        await asyncio.wait([asking])
        assert asking.cancelled()


async def test_nobody_listening_is_not_healthy() -> None:
    async with EmulatorClient("http://127.0.0.1:1") as emulator:
        assert not await emulator.is_healthy()


async def test_the_view_of_an_instance_is_typed(emulated: Emulated) -> None:
    instance_id = await asyncio.to_thread(emulated.new_stopped_instance)
    async with EmulatorClient(emulated.endpoint_url) as emulator:
        view = await emulator.instance(instance_id)
        assert view.state is State.STOPPED
        assert view.intervals[-1].until_s is None
        with pytest.raises(aiohttp.ClientResponseError, match="404"):
            await emulator.instance("i-unknown")


async def test_faults_are_ordered_and_cleared(emulated: Emulated) -> None:
    async with EmulatorClient(emulated.endpoint_url) as emulator:
        await emulator.order(Fault(service="s3", mode=Mode.ERROR))
        assert [fault["service"] for fault in emulated.ask("GET", "/devstack/faults")] == ["s3"]
        await emulator.clear_faults()
        assert emulated.ask("GET", "/devstack/faults") == []


async def test_a_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="context manager"):
        await EmulatorClient("http://127.0.0.1:1").calls()
