"""Time that passes when a test says so: leases, deadlines and heartbeats of hours, without waiting."""

from __future__ import annotations

import asyncio

# Enough turns of the loop for whatever was made ready to come to its next wait.
_TURNS = 40


class Hours(asyncio.SelectorEventLoop):
    """An event loop with real sockets and a clock of its own.

    Attributes:
        passed_s: seconds since it was made.
    """

    passed_s = 0.0

    def time(self) -> float:
        return self.passed_s


async def settle() -> None:
    """Let everybody come to the next wait for the wire, for time, or for the test."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def elapse(seconds: float) -> None:
    """Let time pass, and the timers ring that are due by then."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Hours)
    loop.passed_s += seconds
    await settle()
