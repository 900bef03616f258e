import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from services.devstack.background import Background


async def test_what_runs_beside_the_body_ends_with_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await _run_beside(work(), asyncio.sleep(0))
    assert ended.is_set()


async def test_a_task_that_fails_interrupts_the_body_with_its_error() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await _run_beside(fail(), _wait_for_ever())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_the_body_raises_stays_what_it_is() -> None:
    async def body() -> None:
        raise AssertionError("of the body")

    with pytest.raises(AssertionError, match="of the body"):
        await _run_beside(_wait_for_ever(), body())


async def test_an_error_raised_while_the_task_is_ended_is_not_lost() -> None:
    async def fail_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await _run_beside(fail_at_the_end(), asyncio.sleep(0))


async def test_the_bodys_own_cancellation_passes_through() -> None:
    task = asyncio.create_task(_run_beside(_wait_for_ever(), _wait_for_ever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _run_beside(work: Coroutine[Any, Any, None], body: Coroutine[Any, Any, None]) -> None:
    async with Background() as background:
        background.start(work, name="work")
        await body


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()
