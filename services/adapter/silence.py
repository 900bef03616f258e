"""An upstream that never answers again.

The Unified API answers nothing over a job, and can hang for ever. What tells the two apart is the deadline: silence
that outlasts the longest job is a hang, and only a restart ends it. Where ComfyUI itself can be asked it takes less:
who is silent while ComfyUI has nothing to do is not at work.
"""

from __future__ import annotations

from collections.abc import Callable

from services.adapter.restart import Restart


class Silence:
    """How long the upstream has answered nothing.

    Attributes:
        limit_s: longest silence that can be work: the deadline of a job.
        idle_limit_s: longest silence while ComfyUI has nothing to do.
        clock: monotonic seconds.
    """

    def __init__(self, *, limit_s: float, idle_limit_s: float, restart: Restart, clock: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._idle_limit_s = idle_limit_s
        self._restart = restart
        self._clock = clock
        self._since = clock()
        self._idle_since: float | None = None
        self._asked_at: float | None = None
        self._cause = ""

    @property
    def remark(self) -> str:
        """What a person should know of it; empty while there is nothing to say."""
        if self._asked_at is None:
            return ""
        return f"silent for {round(self._clock() - self._since)} s, {self._cause}; {self._restart.remedy}"

    def end(self) -> None:
        """It has answered, whatever it said."""
        self._since = self._clock()
        self._idle_since = self._asked_at = None

    def goes_on(self, *, comfyui_is_idle: bool = False) -> None:
        """It was asked, outside of any job, and has not answered.

        Beyond the limit its restart is asked for, and again after the same time, should that have come to nothing.
        """
        now = self._clock()
        if not comfyui_is_idle:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        cause = self._beyond_limit(now)
        if cause is not None:
            self._cause = cause
            self._asked_at = now
            self._restart.ask(f"silent for {round(now - self._since)} s, {cause}")

    def _beyond_limit(self, now: float) -> str | None:
        asked_at = self._asked_at
        if now - (self._since if asked_at is None else asked_at) >= self._limit_s:
            return "longer than any job may take"
        if self._idle_since is None:
            return None
        begin = self._idle_since if asked_at is None else max(self._idle_since, asked_at)
        return "while ComfyUI has nothing to do" if now - begin >= self._idle_limit_s else None
