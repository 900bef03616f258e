"""The adapter as a process: its environment, its log, and the service manager that listens to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.devstack.processes import OwnedProcess
from services.devstack.surroundings import surroundings
from tests.adapter.unified_api import UnifiedApi
from tests.adapter.waiting import until
from tests.adapter.wire import Wire
from tests.adapter.workplace import INSTANCE_ID, Workplace

MODULE = (sys.executable, "-m", "services.adapter")
COMMAND = (str(Path(sys.executable).with_name("sqs-to-comfy-adapter")),)

# Short lives for leases and messages; everything that only waits may wait long.
TIMES = {
    "VISIBILITY_TIMEOUT_S": "2",
    "HEARTBEAT_S": "0.4",
    "RECEIVE_WAIT_S": "1",
    "POLL_INTERVAL_S": "0.05",
    "HEALTH_INTERVAL_S": "0.2",
    "WORKER_BEAT_S": "0.5",
    "DRAIN_S": "30",
}
_START_LIMIT_S = 30.0


class ServiceManager:
    """Stands for systemd: takes what is said at the socket of NOTIFY_SOCKET, as it comes.

    Attributes:
        heard: every datagram so far.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []

    def has_heard(self, words: str) -> bool:
        return any(words in said for said in self.heard)


@contextmanager
def service_manager(address: Path) -> Iterator[ServiceManager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        manager = ServiceManager()
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, lambda: manager.heard.append(listener.recv(4096).decode()))
        try:
            yield manager
        finally:
            loop.remove_reader(listener)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterProcess:
    """One running adapter."""

    process: OwnedProcess
    manager: ServiceManager

    def log(self) -> str:
        return self.process.log_path.read_text()

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Its log's events, or those of one name."""
        events = [json.loads(line) for line in self.log().splitlines() if line.endswith("}")]
        return [event for event in events if name in (None, event["event"])]

    async def says(self, words: str) -> None:
        """Wait until the service manager has been told so."""
        await self._until(lambda: self.manager.has_heard(words), f"never said {words!r}")

    async def tells(self, event: str) -> None:
        """Wait until the log has the event."""
        await self._until(lambda: bool(self.events(event)), f"never logged {event}")

    async def ends(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(_START_LIMIT_S):
            return await self.process.wait()

    async def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        try:
            await until(condition, limit_s=_START_LIMIT_S)
        except TimeoutError:
            raise AssertionError(f"{complaint}\n{self.manager.heard}\n{self.log()}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Employer:
    """Starts adapters that work at one place with one upstream."""

    place: Workplace
    wire: Wire
    api: UnifiedApi
    directory: Path
    resources: AsyncExitStack
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def environment(self, **changes: str | None) -> dict[str, str]:
        """A working environment, with changes; None takes a variable away."""
        own: dict[str, str | None] = {
            "SQS_QUEUE_URL": self.place.queue_url,
            "DYNAMODB_TABLE": self.place.table_name,
            "GPU_INSTANCE_ID": INSTANCE_ID,
            "COMFYUI_API_URL": self.api.url,
            "LOG_FORMAT": "json",
            **TIMES,
            **changes,
        }
        inherited = {name: value for name, value in surroundings(self.wire.url).items() if name not in own}
        return inherited | {name: value for name, value in own.items() if value is not None}

    async def start(self, command: Sequence[str] = MODULE, **changes: str | None) -> AdapterProcess:
        """Start one, without waiting for anything."""
        number = next(self.numbers)
        address = self.directory / f"notify-{number}"
        manager = self.resources.enter_context(service_manager(address))
        process = await OwnedProcess.start(
            f"adapter-{number}",
            command,
            env=self.environment(**changes, NOTIFY_SOCKET=str(address)),
            log_path=self.directory / f"adapter-{number}.log",
        )
        self.resources.push_async_callback(process.kill)
        return AdapterProcess(process=process, manager=manager)

    async def start_ready(self, command: Sequence[str] = MODULE, **changes: str | None) -> AdapterProcess:
        """Start one and wait until it says that it is ready."""
        adapter = await self.start(command, **changes)
        await adapter.says("READY=1")
        return adapter


@asynccontextmanager
async def employer(place: Workplace, wire: Wire, api: UnifiedApi, directory: Path) -> AsyncIterator[Employer]:
    """Whatever still runs at the end is killed."""
    async with AsyncExitStack() as resources:
        yield Employer(place=place, wire=wire, api=api, directory=directory, resources=resources)
