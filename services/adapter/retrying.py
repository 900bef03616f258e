"""Repeating what may succeed in a moment, for a while, with a short story in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina
import stamina.instrumentation

from services.adapter.mishaps import Mishaps

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
# A stop is heard at the end of a pause.
_LONGEST_PAUSE_S = 5.0


async def retrying(
    call: Callable[[], Awaitable[T]],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    within_s: float,
    until: asyncio.Event | None = None,
) -> T:
    """Call until it succeeds, pausing longer each time; the last failure is raised.

    Args:
        on: the failures that may pass.
        within_s: how long it is tried.
        until: once it is set, a failure is final. A call under way is not cancelled, since it may have its effect.
    """
    mishaps = Mishaps(failed="retry.failed", recovered="retry.recovered")

    def may_pass(error: Exception) -> bool:
        if not isinstance(error, on) or (until is not None and until.is_set()):
            return False
        mishaps.note(str(error))
        return True

    async for attempt in stamina.retry_context(
        on=may_pass, attempts=None, timeout=within_s, wait_initial=_FIRST_PAUSE_S, wait_max=_LONGEST_PAUSE_S
    ):
        with attempt:
            answer = await call()
            mishaps.end()
            return answer
    raise AssertionError("stamina returns or raises")


def silence_stamina() -> None:
    """Have stamina not log every try besides."""
    stamina.instrumentation.set_on_retry_hooks([])
