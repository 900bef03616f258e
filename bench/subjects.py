"""The processes that take part, each started on its core and awaited until it is ready."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cores import Cores, pin, share_out
from bench.endpoint.client import EndpointControl
from bench.tasks import TABLE, queue_url
from services.devstack.ports import ReservedPort
from services.devstack.processes import OwnedProcess, owned_process

_READY_LIMIT_S = 30.0
_END_LIMIT_S = 5.0
INSTANCE_ID = "i-0fedcba9876543210"


@dataclass(frozen=True, slots=True)
class Subject:
    """A running process.

    Attributes:
        ready_s: from its start to its readiness.
    """

    process: OwnedProcess
    port: int
    ready_s: float

    @property
    def pid(self) -> int:
        return self.process.pid


class Stage:
    """Starts subjects; each lives as long as its `async with` block."""

    def __init__(self, folder: Path, cores: Cores) -> None:
        self.cores = cores
        self._folder = folder
        self._endpoint_port = 0

    @property
    def endpoint_port(self) -> int:
        return self._endpoint_port

    @asynccontextmanager
    async def endpoint(self) -> AsyncIterator[EndpointControl]:
        """AWS. All later subjects use it."""
        async with self._serving("endpoint", "bench.endpoint", core=self.cores.endpoint) as subject:
            self._endpoint_port = subject.port
            yield EndpointControl(subject.port)

    @asynccontextmanager
    async def upstream(self, *, is_blocking: bool) -> AsyncIterator[Subject]:
        """A Unified API."""
        manner = "blocking" if is_blocking else "polite"
        # Its loop blocks in mid-job, so it has no core of its own but sleeps there.
        async with self._serving(f"{manner}-upstream", "bench.upstream", manner, core=self.cores.load) as subject:
            yield subject

    @asynccontextmanager
    async def peer(self, name: str) -> AsyncIterator[Subject]:
        """Another server for the same POST and GET: a module of `bench.peers`."""
        async with self._serving(name, f"bench.peers.{name}", core=self.cores.server) as subject:
            yield subject

    @asynccontextmanager
    async def orchestrator(self, **settings: str) -> AsyncIterator[Subject]:
        """The real one. Its janitor rests, as this table is reset under it."""
        with ReservedPort() as port:
            environment = self._aws_environment() | {
                "SQS_DLQ_URL": f"{queue_url(self._endpoint_port)}-dead",
                "MAX_UNFINISHED_PER_CLIENT": "10000000",
                "HOST": "127.0.0.1",
                "PORT": str(port.number),
                "LOG_FORMAT": "json",
                "JANITOR_INTERVAL_S": "3600",
                **settings,
            }
            async with self._notifying("orchestrator", "services.orchestrator", environment, port.number) as subject:
                yield subject

    @asynccontextmanager
    async def on_a_quarter(self, subject: Subject) -> AsyncIterator[None]:
        """A quarter of its core for a subject."""
        command = [sys.executable, "-m", "bench.quarter", str(subject.pid)]
        async with self._process("quarter", command, self._aws_environment(), self.cores.load):
            yield

    @asynccontextmanager
    async def adapter(self, upstream_port: int, **settings: str) -> AsyncIterator[Subject]:
        """The real one. It is killed at the end: it has nothing to drain then, and its open receive would take time."""
        environment = self._aws_environment() | {
            "COMFYUI_API_URL": f"http://127.0.0.1:{upstream_port}",
            "LOG_FORMAT": "json",
            **settings,
        }
        async with self._notifying("adapter", "services.adapter", environment, 0) as subject:
            try:
                yield subject
            finally:
                await subject.process.kill()

    @asynccontextmanager
    async def piped(self, module: str) -> AsyncIterator[OwnedProcess]:
        """A process of the bench on the server's core, talked to over its pipes."""
        command = [sys.executable, "-m", module]
        log_path = self._folder / f"{module}.log"
        environment = self._aws_environment()
        process = await OwnedProcess.start(module, command, env=environment, log_path=log_path, piped=True)
        try:
            pin(process.pid, self.cores.server)
            yield process
        finally:
            process.stdin.close()
            await process.end(limit_s=_END_LIMIT_S)

    @asynccontextmanager
    async def _serving(self, name: str, module: str, *arguments: str, core: int | None) -> AsyncIterator[Subject]:
        with ReservedPort() as port:
            command = [sys.executable, "-m", module, str(port.number), *arguments]
            started = time.monotonic()
            async with self._process(name, command, self._aws_environment(), core) as process:
                await process.wait_ready(lambda: _accepts(port.number), limit_s=_READY_LIMIT_S)
                yield Subject(process, port.number, time.monotonic() - started)

    @asynccontextmanager
    async def _notifying(
        self, name: str, module: str, environment: Mapping[str, str], port: int
    ) -> AsyncIterator[Subject]:
        """Readiness as systemd learns of it."""
        address = str(self._folder / f"notify-{time.monotonic_ns()}")
        environment = {**environment, "NOTIFY_SOCKET": address}
        command = [sys.executable, "-m", module]
        async with _manager(address) as manager:
            started = time.monotonic()
            async with self._process(name, command, environment, self.cores.server) as process:
                await _wait_for_ready(manager, process)
                yield Subject(process, port, time.monotonic() - started)

    @asynccontextmanager
    async def _process(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], core: int | None
    ) -> AsyncIterator[OwnedProcess]:
        log_path = self._folder / f"{name}.log"
        async with owned_process(
            name, command, env=environment, log_path=log_path, end_limit_s=_END_LIMIT_S
        ) as process:
            pin(process.pid, core)
            yield process

    def _aws_environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return ours | {
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._endpoint_port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SQS_QUEUE_URL": queue_url(self._endpoint_port),
            "DYNAMODB_TABLE": TABLE,
            "GPU_INSTANCE_ID": INSTANCE_ID,
        }


@asynccontextmanager
async def open_stage() -> AsyncIterator[tuple[Stage, EndpointControl]]:
    """A stage with its endpoint; the calling process becomes the load."""
    cores = share_out()
    pin(0, cores.load)
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory(prefix="bench-")))
        stage = Stage(folder, cores)
        yield stage, await resources.enter_async_context(stage.endpoint())


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


class _Manager(asyncio.DatagramProtocol):
    """A service manager that is told of readiness, and goes on reading: a full socket would hold the sender up."""

    def __init__(self) -> None:
        self.is_told = asyncio.Event()

    def datagram_received(self, data: bytes, _address: object) -> None:
        if data.startswith(b"READY=1"):
            self.is_told.set()


@asynccontextmanager
async def _manager(address: str) -> AsyncIterator[_Manager]:
    """Listens at a path of the file system, as systemd does for `NOTIFY_SOCKET`."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(address)
    transport, manager = await asyncio.get_running_loop().create_datagram_endpoint(_Manager, sock=listening)
    try:
        yield manager
    finally:
        transport.close()


async def _wait_for_ready(manager: _Manager, process: OwnedProcess) -> None:
    async def is_ready() -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await manager.is_told.wait()
        return manager.is_told.is_set()

    await process.wait_ready(is_ready, limit_s=_READY_LIMIT_S)
