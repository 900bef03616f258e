"""Waiting for what nothing announces."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_LOOK_EVERY_S = 0.02


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, limit_s: float = 15.0) -> None:
    """Poll the condition until it holds.

    Raises:
        TimeoutError: it did not within `limit_s`, a limit far beyond what is needed.
    """
    async with asyncio.timeout(limit_s):
        while True:
            verdict = condition()
            if inspect.isawaitable(verdict):
                verdict = await verdict
            if verdict:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
