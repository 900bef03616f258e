"""Asking for a restart of the Unified API.

The adapter may not restart other services. It touches a file, and a systemd path unit that the operator may enable does
the rest.
"""

from __future__ import annotations

from pathlib import Path

import structlog

log = structlog.stdlib.get_logger(__name__)


class Restart:
    """Whoever finds the upstream beyond help asks here.

    Attributes:
        file: touched to ask for a restart; None: nobody is asked.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    @property
    def remedy(self) -> str:
        """What is done about it, for a person to read."""
        return "its restart was asked for" if self._file else "restart it, or set UPSTREAM_RESTART_FILE"

    def ask(self, cause: str) -> None:
        """Ask once. The caller decides when to ask again, should that come to nothing."""
        if self._file is None:
            log.error("upstream.restart_needed", cause=cause, restart="not enabled")
            return
        try:
            self._file.touch()
        except OSError as error:
            log.error("upstream.restart_not_requested", cause=cause, error=str(error))  # noqa: TRY400
        else:
            log.error("upstream.restart_requested", cause=cause, file=str(self._file))
