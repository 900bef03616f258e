"""An upstream that never answers again, and asking for its restart.

The Unified API answers nothing over a job, and can hang for ever. What tells the two apart is the deadline: silence
that outlasts the longest job is a hang, and only a restart ends it. The adapter may not restart other services; it
touches a file, and a systemd path unit that the operator may enable does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.stdlib.get_logger(__name__)


class Silence:
    """How long the upstream has answered nothing.

    Attributes:
        limit_s: longest silence that can be work: the deadline of a job.
        restart_file: touched to ask for a restart; None: nobody is asked.
        clock: monotonic seconds.
    """

    def __init__(self, *, limit_s: float, restart_file: Path | None, clock: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._restart_file = restart_file
        self._clock = clock
        self._since = clock()
        self._asked_at: float | None = None

    @property
    def remark(self) -> str:
        """What a person should know of it; empty while there is nothing to say."""
        if self._asked_at is None:
            return ""
        asked = "its restart was asked for" if self._restart_file else "restart it, or set UPSTREAM_RESTART_FILE"
        return f"silent for {round(self._clock() - self._since)} s, longer than any job may take; {asked}"

    def end(self) -> None:
        """It has answered, whatever it said."""
        self._since = self._clock()
        self._asked_at = None

    def goes_on(self) -> None:
        """It was asked, outside of any job, and has not answered.

        Beyond the limit its restart is asked for, and again after the same time, should that have come to nothing.
        """
        now = self._clock()
        begin = self._since if self._asked_at is None else self._asked_at
        if now - begin >= self._limit_s:
            self._asked_at = now
            self._ask_for_restart(now - self._since)

    def _ask_for_restart(self, silent_s: float) -> None:
        if self._restart_file is None:
            log.error("upstream.hangs", silent_s=round(silent_s), restart="not enabled")
            return
        try:
            self._restart_file.touch()
        except OSError as error:
            log.error("upstream.restart_not_requested", silent_s=round(silent_s), error=str(error))  # noqa: TRY400
        else:
            log.error("upstream.restart_requested", silent_s=round(silent_s), file=str(self._restart_file))
