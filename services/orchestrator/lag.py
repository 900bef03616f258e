"""How late the event loop is."""

from __future__ import annotations

import asyncio

_EVERY_S = 0.05
# Of what was measured before, at each measurement: a short calm between two storms is not taken for their end.
_REMEMBERED = 0.8


class LoopLag:
    """Measures what a request waits before anybody looks at it.

    Attributes:
        seconds: the latest, or what is left of a worse one a moment ago.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until `stop`."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            due = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.note(loop.time() - due)

    def note(self, lag_s: float) -> None:
        """One measurement."""
        self.seconds = max(lag_s, self.seconds * _REMEMBERED)
