"""The orchestrator as the one who runs it sees it: a process and a port."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from services.devstack.processes import OwnedProcess

_READY_LIMIT_S = 60.0
_ASK_LIMIT_S = 2.0


class OrchestratorProcess:
    """Started, ended, killed and started again on the same port. Nobody starts it again unasked."""

    def __init__(
        self, *, command: Sequence[str], env: Mapping[str, str], base_url: str, log_path: Path, end_limit_s: float
    ) -> None:
        self._command = command
        self._env = env
        self._base_url = base_url
        self._log_path = log_path
        self._end_limit_s = end_limit_s
        self._process: OwnedProcess | None = None

    @property
    def pid(self) -> int | None:
        """None if it does not run."""
        return None if self._process is None or self._process.exit_code is not None else self._process.pid

    async def start(self) -> None:
        """Start it; `wait_ready` tells when it serves."""
        self._process = await OwnedProcess.start("orchestrator", self._command, env=self._env, log_path=self._log_path)

    async def wait_ready(self) -> None:
        """Wait until GET /health is 200.

        Raises:
            ProcessNotReadyError: it ended, or did not serve in time.
        """
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
            await self._running().wait_ready(lambda: self._serves(http), limit_s=_READY_LIMIT_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal that it may survive.

        Raises:
            ProcessLookupError: it does not run.
        """
        self._running().send(number)

    async def kill(self, number: signal.Signals) -> int:
        """Send a signal that ends it and wait for that. Returns the exit code.

        Raises:
            ProcessLookupError: it does not run.
            TimeoutError: it goes on running.
        """
        process = self._running()
        process.send(number)
        async with asyncio.timeout(self._end_limit_s):
            return await process.wait()

    async def end(self) -> None:
        """SIGTERM, then SIGKILL; nothing if it does not run."""
        if self._process is not None:
            await self._process.end(limit_s=self._end_limit_s)

    def _running(self) -> OwnedProcess:
        if self._process is None:
            raise ProcessLookupError("the orchestrator was never started")
        return self._process

    async def _serves(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with asyncio.timeout(_ASK_LIMIT_S), http.get(f"{self._base_url}/health") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
