"""ComfyUI itself, behind the Unified API. It never blocks, so it is asked when the Unified API is silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import structlog

from services.adapter import wedge
from services.adapter.errors import UpstreamGarbled
from services.adapter.restart import Restart
from services.adapter.upstream import read_text
from services.adapter.wedge import Ended, Sight

_TIMEOUT_S = 5.0
# An entry holds its whole graph; the job in question is among the last, as the Unified API queues one at a time.
_LAST_ENTRIES = 8
_MAX_ANSWER_BYTES = 8_000_000
_LOOKS_BEFORE_A_VERDICT = 4

log = structlog.stdlib.get_logger(__name__)


class ComfyUi:
    """Asks, and never raises: what ComfyUI does not say is not known, and then the deadline decides as ever."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def is_idle(self) -> bool:
        """Whether nothing runs there and nothing waits; False also if it does not say."""
        return wedge.is_idle(await self._get("/queue"))

    async def sight(self, job_id: str) -> Sight | None:
        """How it is with the job that the Unified API calls `job_id`; None: it does not say."""
        queue = await self._get("/queue")
        history = await self._get(f"/history?max_items={_LAST_ENTRIES}")
        if queue is None or history is None:
            return None
        return Sight(is_idle=wedge.is_idle(queue), ended=wedge.end_of(history, job_id))

    async def _get(self, path: str) -> Any:
        """The JSON behind the path; None if there is none."""
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._session.get(path, allow_redirects=False) as answer:
                text = await read_text(answer, most_bytes=_MAX_ANSWER_BYTES)
                return json.loads(text) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, UpstreamGarbled, ValueError, RecursionError) as error:
            log.debug("comfyui.look_failed", path=path, error=f"{type(error).__name__}: {error}")
            return None


class Wedges:
    """Finds out that the Unified API will never tell the end of a job, and asks for its restart.

    Attributes:
        after_s: for how long ComfyUI must have been idle, and the job ended there.
        clock: monotonic seconds.
    """

    def __init__(self, *, comfyui: ComfyUi, restart: Restart, after_s: float, clock: Callable[[], float]) -> None:
        self.comfyui = comfyui
        self.restart = restart
        self.after_s = after_s
        self.clock = clock

    @property
    def interval_s(self) -> float:
        """Between two looks."""
        return self.after_s / _LOOKS_BEFORE_A_VERDICT

    def over(self, job_id: str) -> WedgeWatch:
        """For the time of one job."""
        return WedgeWatch(self, job_id)


class WedgeWatch:
    """The looks at ComfyUI for one job."""

    def __init__(self, wedges: Wedges, job_id: str) -> None:
        self._wedges = wedges
        self._job_id = job_id
        self._looked_at = wedges.clock()
        self._since: float | None = None

    async def look(self) -> Ended | None:
        """How the job ended in truth, if the Unified API hangs over it. Asks ComfyUI at most once per interval."""
        wedges = self._wedges
        if wedges.clock() - self._looked_at < wedges.interval_s:
            return None
        sight = await wedges.comfyui.sight(self._job_id)
        self._looked_at = now = wedges.clock()
        self._since = wedge.wedged_since(self._since, sight, now=now)
        ended = wedge.verdict(sight, self._since, now=now, after_s=wedges.after_s)
        if ended is not None:
            wedges.restart.ask(f"ComfyUI ended {self._job_id} and is idle, and the Unified API does not tell")
        return ended
