"""Nothing is received, and nothing submitted, while the Unified API could not take it."""

from __future__ import annotations

import asyncio

import structlog

from lib.daemon.waiting import wait_for
from lib.gputask.gpu import UpstreamHealth
from services.adapter.comfyui import ComfyUi
from services.adapter.silence import Silence
from services.adapter.suspicion import Suspicion
from services.adapter.upstream import UnifiedApi
from services.adapter.worker import Worker

# A job that has just ended well says more than a look at the health, and costs no time.
_VOUCHES_FOR_S = 1.0

log = structlog.stdlib.get_logger(__name__)


class UpstreamGate:
    """Asks `/health` before each receive, and again before what it brought is submitted.

    Silence over a job in work is business; silence without one means it hangs or starts, so the gate stays shut.

    Attributes:
        comfyui: ComfyUI itself, where it can be asked.
    """

    def __init__(
        self,
        *,
        api: UnifiedApi,
        worker: Worker,
        silence: Silence,
        suspicion: Suspicion,
        stop: asyncio.Event,
        interval_s: float,
        comfyui: ComfyUi | None = None,
    ) -> None:
        self._api = api
        self._worker = worker
        self._silence = silence
        self._suspicion = suspicion
        self._stop = stop
        self._interval_s = interval_s
        self._comfyui = comfyui
        self._ended_well_at: float | None = None

    async def is_open(self) -> bool:
        """Whether to receive now; waits a moment if not."""
        if self._is_vouched_for() or (
            await self._look() is UpstreamHealth.HEALTHY and not (self._suspicion.is_trial and self._worker.has_work)
        ):
            return True
        await wait_for(self._stop, self._interval_s)
        return False

    async def is_still_open(self) -> bool:
        """Whether to submit now: during a long poll the upstream may have failed.

        A pool's other jobs do not shut it, though they make the upstream silent: a submission takes its turn there.
        Only a job on trial has the upstream to itself.
        """
        if self._is_vouched_for():
            return True
        health = await self._look()
        return health is not UpstreamHealth.UNHEALTHY and not (self._suspicion.is_trial and self._worker.has_work)

    def note_success(self) -> None:
        """A job has ended well just now."""
        self._suspicion.end()
        self._silence.end()
        self._ended_well_at = asyncio.get_running_loop().time()

    def doubts(self, message: str, request: str) -> bool:
        """Note how a job failed on a healthy upstream; whether the upstream may be at fault all the same."""
        self._ended_well_at = None
        return self._suspicion.doubts(message, request)

    def _is_vouched_for(self) -> bool:
        ended_at = self._ended_well_at
        return ended_at is not None and asyncio.get_running_loop().time() - ended_at < _VOUCHES_FOR_S

    async def _look(self) -> UpstreamHealth:
        health = await self._ask()
        if health is not UpstreamHealth.BUSY:
            self._silence.end()
            self._suspicion.look(is_healthy=health is UpstreamHealth.HEALTHY)
        elif not self._worker.has_work:
            self._silence.goes_on(comfyui_is_idle=self._comfyui is not None and await self._comfyui.is_idle())
            health = UpstreamHealth.UNHEALTHY
        if self._suspicion.is_shut:
            health = UpstreamHealth.UNHEALTHY
        self._worker.note_upstream(health, remark=self._silence.remark or self._suspicion.remark)
        return health

    async def _ask(self) -> UpstreamHealth:
        try:
            return await self._api.health(self._interval_s)
        except Exception:
            # What is raised from here would end the pool, and with it the other slots' jobs.
            log.exception("upstream.health_unknown")
            return UpstreamHealth.UNHEALTHY
