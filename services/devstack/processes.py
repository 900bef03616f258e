"""Child processes with an owner: started on a leash, logged to a file, waited for, and ended in bounded time."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

_LEASH = Path(__file__).with_name("leash.py")
_LOOK_EVERY_S = 0.05
_LOG_TAIL_LINES = 15


class ProcessNotReadyError(Exception):
    """A process ended, or its time ran out, before it was ready. The message ends with the last lines of its log."""


class OwnedProcess:
    """One child process. It dies with its parent, whatever kills that (see `leash.py`)."""

    def __init__(self, name: str, process: Process, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._process = process

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], *, env: Mapping[str, str], log_path: Path, piped: bool = False
    ) -> Self:
        """Start `command` with exactly the environment `env`; stderr (and stdout, unless `piped`) append to the log.

        It gets a session of its own: Ctrl-C in a terminal reaches only the owner, who ends the children in order.
        """
        leashed = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command]
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *leashed,
                stdin=PIPE if piped else asyncio.subprocess.DEVNULL,
                stdout=PIPE if piped else log,
                stderr=log,
                env=dict(env),
                start_new_session=True,
            )
        return cls(name, process, log_path)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.returncode

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Only of a `piped` process."""
        if self._process.stdin is None:
            raise RuntimeError(f"{self.name} was started without pipes")
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        """Only of a `piped` process."""
        if self._process.stdout is None:
            raise RuntimeError(f"{self.name} was started without pipes")
        return self._process.stdout

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        return await self._process.wait()

    async def wait_ready(self, is_ready: Callable[[], Awaitable[bool]], *, limit_s: float) -> None:
        """Wait until `is_ready` says so.

        Raises:
            ProcessNotReadyError: the process ended, or `limit_s` passed, before that.
        """
        give_up_at_s = time.monotonic() + limit_s
        while not await is_ready():
            if self.exit_code is not None:
                raise ProcessNotReadyError(f"{self.name} exited with {self.exit_code}\n{self.log_tail()}")
            if time.monotonic() > give_up_at_s:
                raise ProcessNotReadyError(f"{self.name} was not ready after {limit_s} s\n{self.log_tail()}")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def end(self, *, limit_s: float) -> int:
        """SIGTERM, and SIGKILL when `limit_s` have passed. Returns the exit code."""
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(limit_s):
                return await self.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """SIGKILL, for it and whatever it started in its session. Returns the exit code."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return await self.wait()

    def log_tail(self) -> str:
        """The last lines it wrote."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


@asynccontextmanager
async def owned_process(
    name: str, command: Sequence[str], *, env: Mapping[str, str], log_path: Path, end_limit_s: float
) -> AsyncIterator[OwnedProcess]:
    """A process that lives as long as the `async with` block."""
    process = await OwnedProcess.start(name, command, env=env, log_path=log_path)
    try:
        yield process
    finally:
        await process.end(limit_s=end_limit_s)
