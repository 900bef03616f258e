"""The orchestrator as a process, seen from outside: HTTP, signals, exit code, log, and what its manager hears."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from services.devstack.ports import ReservedPort
from services.devstack.processes import OwnedProcess
from services.devstack.surroundings import surroundings
from tests.orchestrator.aws_world import BODY, AwsWorld, Gpu, eventually

POST_PATH = "/api/v1/camera-angle/jobs"

_START_LIMIT_S = 60.0
_END_LIMIT_S = 20.0
_COMMAND = (sys.executable, "-m", "services.orchestrator")


def environment_of(world: AwsWorld, gpu: Gpu) -> dict[str, str]:
    """What has to be set, for resources that exist."""
    return {
        "SQS_QUEUE_URL": world.queue_url,
        "SQS_DLQ_URL": world.dead_letter_queue_url,
        "DYNAMODB_TABLE": world.table_name,
        "GPU_INSTANCE_ID": gpu.id,
        "LOG_FORMAT": "json",
    }


class Manager:
    """The service manager's end of the readiness protocol."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def hears(self, what: str) -> str:
        """Wait for a notification that contains `what`."""
        loop = asyncio.get_running_loop()
        while True:
            message = (await loop.sock_recv(self._socket, 4096)).decode()
            if what in message.splitlines():
                return message


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """A running one."""

    process: OwnedProcess
    manager: Manager
    port: int
    http: aiohttp.ClientSession

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name it has logged so far."""
        lines = self.process.log_path.read_text().splitlines()
        parsed = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in parsed if event["event"] == name]

    async def logs(self, name: str) -> dict[str, Any]:
        """Wait for an event."""

        async def is_there() -> bool:
            return bool(self.events(name))

        await eventually(is_there)
        return self.events(name)[-1]

    async def post(self) -> aiohttp.ClientResponse:
        """Submit a job."""
        async with self.http.post(POST_PATH, data=BODY, headers={"Content-Type": "application/json"}) as answer:
            await answer.read()
            return answer

    async def submit(self) -> aiohttp.ClientResponse:
        """Submit a job as clients do: again, if a busy machine was too slow for the promised second."""
        answer = await self.post()
        while answer.status == 503:
            answer = await self.post()
        assert answer.status == 202
        return answer

    async def warm_up(self) -> None:
        """Have the clients of the request path make their first, slow call."""
        assert await self.status("/ready") == 200

    async def status(self, path: str) -> int:
        async with self.http.get(path) as answer:
            await answer.read()
            return answer.status

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        async with asyncio.timeout(_END_LIMIT_S):
            return await self.process.wait()

    async def refuses_connections(self) -> bool:
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False


@dataclass(frozen=True, slots=True)
class Site:
    """Where orchestrators are started, one after the other, with the same settings and on the same port."""

    environment: Mapping[str, str]
    directory: Path
    port: int

    @asynccontextmanager
    async def running(self, **settings: str | None) -> AsyncIterator[Orchestrator]:
        """An orchestrator that has said it is ready; killed at the end if it still runs. None takes a setting away."""
        number = len(list(self.directory.glob("*.log")))
        log_path = self.directory / f"{number}.log"
        base_url = f"http://127.0.0.1:{self.port}"
        with Manager(self.directory / f"{number}.socket") as manager:
            environment = self._environment(NOTIFY_SOCKET=str(manager.path), **settings)
            process = await OwnedProcess.start("orchestrator", _COMMAND, env=environment, log_path=log_path)
            try:
                await _until_ready(process, manager)
                async with aiohttp.ClientSession(base_url) as http:
                    yield Orchestrator(process, manager, self.port, http)
            finally:
                await process.kill()

    async def refusal(self, **settings: str | None) -> tuple[int, str]:
        """Exit code and output of an orchestrator that does not start; None takes a setting away."""
        log_path = self.directory / "refusal.txt"
        process = await OwnedProcess.start(
            "orchestrator", _COMMAND, env=self._environment(**settings), log_path=log_path
        )
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                return await process.wait(), log_path.read_text()
        finally:
            await process.kill()

    def _environment(self, **settings: str | None) -> dict[str, str]:
        return {name: text for name, text in {**self.environment, **settings}.items() if text is not None}


@asynccontextmanager
async def site(world: AwsWorld, gpu: Gpu, directory: Path) -> AsyncIterator[Site]:
    """A free port and the settings that fit the world."""
    with ReservedPort() as port:
        own = {**environment_of(world, gpu), "PORT": str(port.number)}
        yield Site(surroundings(world.endpoint_url, own), directory, port.number)


async def _until_ready(process: OwnedProcess, manager: Manager) -> None:
    ready = asyncio.create_task(manager.hears("READY=1"))
    ended = asyncio.create_task(process.wait())
    try:
        await asyncio.wait((ready, ended), timeout=_START_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        assert ready.done(), f"not ready\n{process.log_tail()}"
    finally:
        ready.cancel()
        ended.cancel()
