"""Nothing is received while the Unified API could not take it."""

from __future__ import annotations

import asyncio

import structlog

from lib.daemon.waiting import wait_for
from lib.gputask.gpu import UpstreamHealth
from services.adapter.upstream import UnifiedApi
from services.adapter.worker import Worker

log = structlog.stdlib.get_logger(__name__)


class UpstreamGate:
    """Asks `/health` before each receive.

    Silence over a job in work is business; silence without one means it hangs or starts, so the gate stays shut.
    """

    def __init__(self, *, api: UnifiedApi, worker: Worker, stop: asyncio.Event, interval_s: float) -> None:
        self._api = api
        self._worker = worker
        self._stop = stop
        self._interval_s = interval_s

    async def is_open(self) -> bool:
        """Whether to receive now; waits a moment if not."""
        health = await self._api.health(self._interval_s)
        if health is UpstreamHealth.BUSY and not self._worker.has_work:
            health = UpstreamHealth.UNHEALTHY
        self._worker.note_upstream(health)
        if health is UpstreamHealth.HEALTHY:
            return True
        await wait_for(self._stop, self._interval_s)
        return False
