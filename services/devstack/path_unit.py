"""A pretend systemd path unit: restarts a unit when somebody touches a file."""

import asyncio
import signal
from pathlib import Path

import structlog

from services.devstack.box import Unit

log = structlog.stdlib.get_logger(__name__)

_LOOK_S = 0.2


class RestartPath:
    """`PathExists=` on a file; its service removes the file and restarts the unit.

    A hung upstream is deaf to SIGTERM, so `stop_limit_s` (TimeoutStopSec) later comes SIGKILL.
    """

    def __init__(self, path: Path, unit: Unit, *, stop_limit_s: float) -> None:
        self._path = path
        self._unit = unit
        self._stop_limit_s = stop_limit_s
        self.restarts = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if self._path.exists():
                self._path.unlink()
                await self._restart()
            await asyncio.sleep(_LOOK_S)

    async def _restart(self) -> None:
        process = self._unit.process
        if process is None or process.exit_code is not None:
            return
        log.info("unit.restarted_on_request", unit=self._unit.file.name)
        self.restarts += 1
        process.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._stop_limit_s):
                await process.wait()
        except TimeoutError:
            await process.kill()
