"""Looks that failed in a row: one line in the log for each change, and a summary at the end."""

from __future__ import annotations

import structlog

log = structlog.stdlib.get_logger(__name__)


class Mishaps:
    """What went wrong with the looks at one job."""

    def __init__(self) -> None:
        self._error: str | None = None
        self._count = 0

    def note(self, error: str) -> None:
        """A look failed. The same error again is only counted."""
        self._count += 1
        if error != self._error:
            log.warning("upstream.look_failed", error=error)
            self._error = error

    def end(self) -> None:
        """A look was answered."""
        if self._count:
            log.info("upstream.looks_recovered", failed=self._count, error=self._error)
        self._error, self._count = None, 0
