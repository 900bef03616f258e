"""Nothing is received, and nothing submitted, while the Unified API could not take it."""

from __future__ import annotations

import asyncio

import structlog

from lib.daemon.waiting import wait_for
from lib.gputask.gpu import UpstreamHealth
from services.adapter.silence import Silence
from services.adapter.upstream import UnifiedApi
from services.adapter.worker import Worker

log = structlog.stdlib.get_logger(__name__)


class UpstreamGate:
    """Asks `/health` before each receive, and again before what it brought is submitted.

    Silence over a job in work is business; silence without one means it hangs or starts, so the gate stays shut.
    """

    def __init__(
        self, *, api: UnifiedApi, worker: Worker, silence: Silence, stop: asyncio.Event, interval_s: float
    ) -> None:
        self._api = api
        self._worker = worker
        self._silence = silence
        self._stop = stop
        self._interval_s = interval_s

    async def is_open(self) -> bool:
        """Whether to receive now; waits a moment if not."""
        if await self._look() is UpstreamHealth.HEALTHY:
            return True
        await wait_for(self._stop, self._interval_s)
        return False

    async def is_still_open(self) -> bool:
        """Whether to submit now: during a long poll the upstream may have failed.

        A pool's other jobs do not shut it, though they make the upstream silent: a submission takes its turn there.
        """
        return await self._look() is not UpstreamHealth.UNHEALTHY

    async def _look(self) -> UpstreamHealth:
        health = await self._api.health(self._interval_s)
        if health is not UpstreamHealth.BUSY:
            self._silence.end()
        elif not self._worker.has_work:
            self._silence.goes_on()
            health = UpstreamHealth.UNHEALTHY
        self._worker.note_upstream(health, remark=self._silence.remark)
        return health
