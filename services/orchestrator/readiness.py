"""Whether this replica can do its work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from services.orchestrator.errors import NotReady

# Looks at each thing the service needs and says whether it answered.
ReadinessCheck = Callable[[], Awaitable[Mapping[str, bool]]]

CACHE_S = 5.0
DEADLINE_S = 2.0

log = structlog.stdlib.get_logger(__name__)


class Readiness:
    """The last look, good or bad, for a few seconds. Many askers make one look.

    Attributes:
        gpu_problem: what keeps the GPU from waking until an operator helps, as the waker's last look found it.
        deadline_s: how long a look may take.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        check: ReadinessCheck,
        *,
        gpu_problem: Callable[[], str | None] = lambda: None,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check = check
        self._gpu_problem = gpu_problem
        self._deadline_s = deadline_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._checks: Mapping[str, bool] = {}
        self._fresh_until = float("-inf")

    async def ensure(self) -> Mapping[str, bool]:
        """What was looked at.

        Raises:
            NotReady: something did not answer, the look itself failed or took too long, or the GPU cannot be woken.
        """
        # A lock rather than a shared task: an asker that goes away cancels only itself, and the next one looks.
        async with self._lock:
            if self._clock() >= self._fresh_until:
                self._checks = await self._look()
                self._fresh_until = self._clock() + CACHE_S
        problem = self._gpu_problem()
        checks = {**self._checks, "gpu": problem is None}
        if not all(checks.values()):
            raise NotReady(checks, problem)
        return checks

    async def _look(self) -> Mapping[str, bool]:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._check()
        except Exception:
            log.exception("readiness.failed")
            return {"check": False}
