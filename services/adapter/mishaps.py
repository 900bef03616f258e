"""Tries that failed in a row: one line in the log for each change, and a summary at the end."""

from __future__ import annotations

import structlog

log = structlog.stdlib.get_logger(__name__)


class Mishaps:
    """What went wrong with the tries at one thing.

    Args:
        failed: the event of a change,
        recovered: and of the summary.
    """

    def __init__(self, *, failed: str, recovered: str) -> None:
        self._failed = failed
        self._recovered = recovered
        self._error: str | None = None
        self._count = 0

    def note(self, error: str) -> None:
        """A try failed. The same error again is only counted."""
        self._count += 1
        if error != self._error:
            log.warning(self._failed, error=error)
            self._error = error

    def end(self) -> None:
        """A try succeeded."""
        if self._count:
            log.info(self._recovered, failed=self._count, error=self._error)
        self._error, self._count = None, 0
