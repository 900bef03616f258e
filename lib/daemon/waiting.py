"""Waiting that a stop can end."""

from __future__ import annotations

import asyncio


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, but not longer; True if it came."""
    return await wait_for_any((event,), seconds)


async def wait_for_any(events: tuple[asyncio.Event, ...], seconds: float) -> bool:
    """Wait until one of the events is set, but not longer; True if one is."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return bool(done)
