from __future__ import annotations

import asyncio

from lib.daemon.waiting import wait_for, wait_for_any


async def test_an_event_that_comes_ends_the_wait() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_for(event, 60) is True


async def test_an_event_that_is_there_needs_no_wait() -> None:
    event = asyncio.Event()
    event.set()
    assert await wait_for(event, 0) is True


async def test_an_event_that_does_not_come_is_given_up() -> None:
    assert await wait_for(asyncio.Event(), 0.01) is False


async def test_any_of_several_events_ends_the_wait() -> None:
    never, event = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_for_any((never, event), 60) is True


async def test_a_wait_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    await wait_for_any((asyncio.Event(), asyncio.Event()), 0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
