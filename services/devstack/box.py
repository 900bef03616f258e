"""A pretend GPU box: what happens on the machine while EC2 says `pending`, `running`, `stopping`, `stopped`.

It boots when the instance runs, then keeps its units alive as systemd would (`Restart=always`); told to stop, it ends
them in reverse order and reports that it has halted; when the power is gone, everything is killed at once.
"""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import structlog

from services.devstack.emulator.client import EmulatorClient
from services.devstack.power import State
from services.devstack.processes import OwnedProcess

log = structlog.stdlib.get_logger(__name__)

_INSTANCE_WAIT_S = 10.0
_RETRY_S = 0.2
_EXIT_LIMIT_S = 3.0


@dataclass(frozen=True, slots=True)
class UnitFile:
    """What systemd would know of a service. `stop_limit_s` is TimeoutStopSec, `restart_s` RestartSec."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_limit_s: float = 90.0
    restart_s: float = 0.5


class Unit:
    """A service that is started again whenever its process ends, until it is told to stop."""

    def __init__(self, file: UnitFile, *, log_dir: Path) -> None:
        self.file = file
        self.starts = 0
        self.exit_codes: list[int] = []
        self.process: OwnedProcess | None = None
        self._log_path = log_dir / f"{file.name}.log"
        self._stopping = asyncio.Event()
        self._starting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.exit_code is None

    @property
    def restarts(self) -> int:
        """Starts since the boot after the first."""
        return max(0, self.starts - 1)

    def start(self) -> None:
        """Begin to keep it alive."""
        self._stopping.clear()
        self.starts = 0
        self._keeper = asyncio.create_task(self._keep_alive(), name=f"unit.{self.file.name}")

    async def stop(self, *, limit_s: float | None = None) -> None:
        """SIGTERM, and SIGKILL after `limit_s`, or the unit's own limit."""
        self._stopping.set()
        async with self._starting:  # a process that is being started now is the one to end
            process = self.process
        if process is not None:
            await process.end(limit_s=self.file.stop_limit_s if limit_s is None else limit_s)
        if self._keeper is not None:
            await self._keeper

    async def kill(self) -> None:
        """End it without a word."""
        if self._keeper is not None:
            await _cancel(self._keeper)
        if self.process is not None:
            await self.process.kill()

    def send(self, number: signal.Signals) -> int:
        """Send a signal to the process; returns its id.

        Raises:
            ProcessLookupError: it does not run.
        """
        if self.process is None or self.process.exit_code is not None:
            raise ProcessLookupError(f"{self.file.name} does not run")
        self.process.send(number)
        return self.process.pid

    async def _keep_alive(self) -> None:
        while (process := await self._start_process()) is not None:
            self.exit_codes.append(await process.wait())
            log.info("unit.ended", unit=self.file.name, exit_code=self.exit_codes[-1])
            with suppress(TimeoutError):
                async with asyncio.timeout(self.file.restart_s):
                    await self._stopping.wait()

    async def _start_process(self) -> OwnedProcess | None:
        async with self._starting:
            if self._stopping.is_set():
                return None
            self.process = await OwnedProcess.start(
                self.file.name, self.file.command, env=self.file.env, log_path=self._log_path
            )
            self.starts += 1
            return self.process


class GpuBox:
    """Follows one instance. `units` are started together and stopped in reverse order, as `After=` orders them."""

    def __init__(
        self, *, emulator: EmulatorClient, instance_id: str, boot_s: float, units: Sequence[UnitFile], log_dir: Path
    ) -> None:
        self._emulator = emulator
        self._instance_id = instance_id
        self._boot_s = boot_s
        self._machine: asyncio.Task[None] | None = None
        self.units = {file.name: Unit(file, log_dir=log_dir) for file in units}

    async def run(self) -> None:
        """Follow the instance until cancelled; then end the machine, within a few seconds."""
        version = -1
        try:
            while True:
                try:
                    view = await self._emulator.instance(self._instance_id, after=version, wait_s=_INSTANCE_WAIT_S)
                except (aiohttp.ClientError, TimeoutError) as error:
                    log.warning("box.blind", error=str(error))
                    await asyncio.sleep(_RETRY_S)
                    continue
                if view.version > version:
                    version = view.version
                    await self._follow(view.state)
        finally:
            await self._end_machine()
            await asyncio.gather(*(unit.stop(limit_s=_EXIT_LIMIT_S) for unit in self.units.values()))

    async def _follow(self, state: State) -> None:
        log.info("box.instance_changed", state=state)
        match state:
            case State.RUNNING:
                await self._cut_power()
                self._machine = asyncio.create_task(self._boot(), name="box.boot")
            case State.STOPPING:
                await self._end_machine()
                self._machine = asyncio.create_task(self._shut_down(), name="box.shut_down")
            case State.STOPPED | State.TERMINATED | State.PENDING:
                await self._cut_power()

    async def _boot(self) -> None:
        await asyncio.sleep(self._boot_s)
        for unit in self.units.values():
            unit.start()
        log.info("box.booted")

    async def _shut_down(self) -> None:
        began_s = time.monotonic()
        for unit in reversed(self.units.values()):
            await unit.stop()
        try:
            await self._emulator.report_halted(self._instance_id)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("box.halt_unreported", error=str(error))  # the power cut ends `stopping` as well
        log.info("box.halted", after_s=round(time.monotonic() - began_s, 3))

    async def _cut_power(self) -> None:
        await self._end_machine()
        await asyncio.gather(*(unit.kill() for unit in self.units.values()))

    async def _end_machine(self) -> None:
        """End what the machine is doing: booting, or shutting down."""
        machine, self._machine = self._machine, None
        if machine is not None:
            await _cancel(machine)


async def _cancel(task: asyncio.Task[None]) -> None:
    """End `task`; what it failed with before that is not lost, and neither is our own cancellation meanwhile."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
