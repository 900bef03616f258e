"""Keeping the row of failures, and asking for a restart when it has become long."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import structlog

from services.adapter import row
from services.adapter.restart import Restart
from services.adapter.row import Row, Stage

log = structlog.stdlib.get_logger(__name__)


class Suspicion:
    """What the ends of jobs say of the upstream that `/health` does not.

    Attributes:
        clock: monotonic seconds.
    """

    def __init__(self, *, restart: Restart, clock: Callable[[], float]) -> None:
        self._restart = restart
        self._clock = clock
        self._row = Row()

    @property
    def is_shut(self) -> bool:
        """Whether nothing may be submitted."""
        return self._row.stage is Stage.SHUT

    @property
    def is_trial(self) -> bool:
        """Whether one job at a time may be submitted."""
        return self._row.stage is Stage.TRIAL

    @property
    def remark(self) -> str:
        """What a person should know of it; empty while there is nothing to say."""
        if not self.is_shut:
            return ""
        return f"suspected: {row.LONG} jobs in a row failed in the same way; {self._restart.remedy}"

    def doubts(self, message: str, request: str) -> bool:
        """Note that a job failed on an upstream that says that it is healthy; whether the upstream may be at fault."""
        if row.tells_of_its_input(message):
            return False
        kind, fingerprint = row.kind_of(message), hashlib.sha256(request.encode()).hexdigest()
        before = self._row
        self._row = row.after_failure(before, kind=kind, fingerprint=fingerprint, now=self._clock())
        if self.is_shut and before.stage is not Stage.SHUT:
            self._restart.ask(f"{row.LONG} jobs in a row failed in the same way: {kind}")
        elif before.stage is Stage.TRIAL:
            log.warning("upstream.trial_failed", error=message, same_as_before=kind == before.kind)
        return row.is_doubtful(before, self._row, kind=kind, fingerprint=fingerprint)

    def end(self) -> None:
        """Note that a job ended well."""
        if self.is_trial:
            log.info("upstream.trial_passed")
        self._row = row.after_success(self._row)

    def look(self, *, is_healthy: bool) -> None:
        """Note what the upstream says of its health."""
        self._row = row.after_look(self._row, is_healthy=is_healthy, now=self._clock())
