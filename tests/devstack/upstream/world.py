"""What the stand-in lives in: S3, images, and its own process."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from tests.devstack.upstream.images import DEADLINE_S, ImageHost

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BUCKET = "results"
ROOT = Path(__file__).parents[3]
# How long something must not happen to count as "does not happen". Only a wrong implementation can profit from it.
QUIET_S = 0.3


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; TimeoutError after DEADLINE_S."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: Any


class Call:
    """A request that has been sent (its bytes are with the server's kernel), and whose answer may be long in coming."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._answer = asyncio.ensure_future(_read_answer(reader))

    async def answer(self) -> Answer:
        async with asyncio.timeout(DEADLINE_S):
            answer = await self._answer
        await self.abandon()
        return answer

    async def is_unanswered(self) -> bool:
        """Tell whether nothing came for QUIET_S."""
        await asyncio.wait({self._answer}, timeout=QUIET_S)
        return not self._answer.done()

    async def abandon(self) -> None:
        """Close the connection, answered or not."""
        self._answer.cancel()
        await asyncio.wait({self._answer})
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    # By its length: the blocked server cannot close the connection of an answer it has already given.
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length:")[2].split()[0])
    return Answer(int(head.split()[1]), json.loads(await reader.readexactly(length)))


class Upstream:
    """A running stand-in."""

    def __init__(self, process: Process, port: int, run_log: Path, log_path: Path) -> None:
        self.process = process
        self.log_path = log_path
        self._port = port
        self._run_log = run_log
        self._calls: list[Call] = []

    async def send(self, method: str, path: str, body: object = None, *, headers: str = "") -> Call:
        """Send a request. `body` is sent as it is if bytes, as JSON otherwise."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: upstream\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
        call = Call(reader, writer)
        self._calls.append(call)
        return call

    async def get(self, path: str) -> Answer:
        return await (await self.send("GET", path)).answer()

    async def post(self, kind: str, body: object, *, headers: str = "") -> Answer:
        return await (await self.send("POST", f"/api/v1/{kind}/jobs", body, headers=headers)).answer()

    async def submit(self, kind: str, body: object) -> str:
        """POST a job that must be accepted; returns its id."""
        answer = await self.post(kind, body)
        assert answer.status == 200, answer
        return str(answer.body["job_id"])

    async def run(self, kind: str, body: object) -> dict[str, Any]:
        """POST a job and return what the GET after its end says."""
        job_id = await self.submit(kind, body)
        answer = await self.get(f"/api/v1/jobs/{job_id}")
        assert answer.status == 200, answer
        return dict(answer.body)

    def runs(self) -> list[dict[str, Any]]:
        """What the run log says so far."""
        if not self._run_log.exists():
            return []
        return [json.loads(line) for line in self._run_log.read_text().splitlines()]

    def events(self, job_id: str) -> list[str]:
        return [run["event"] for run in self.runs() if run["job_id"] == job_id]

    def log(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def wait_for_exit(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        for call in self._calls:
            await call.abandon()


@dataclass(slots=True)
class World:
    """S3, images, and as many stand-ins as the test starts; a run log for all of them."""

    s3: "S3Client"
    s3_url: str
    images: ImageHost
    tmp_path: Path
    started: list[Upstream] = field(default_factory=list)

    async def start(self, **environment: str) -> Upstream:
        log_path = self.tmp_path / f"upstream-{len(self.started)}.log"
        run_log = self.tmp_path / "runs.jsonl"
        with log_path.open("wb") as log_file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.devstack.upstream",
                cwd=ROOT,
                stderr=log_file,
                env=self.environment() | {"RUN_LOG": str(run_log)} | environment,
            )
        upstream = Upstream(process, 0, run_log, log_path)
        self.started.append(upstream)
        await until(lambda: process.returncode is not None or _listening_port(upstream) is not None)
        port = _listening_port(upstream)
        assert port is not None, log_path.read_text()
        upstream._port = port
        return upstream

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "AWS_ENDPOINT_URL": self.s3_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "LOG_FORMAT": "json",
            "NO_PROXY": "127.0.0.1",
            "PORT": "0",
            "RESULT_BUCKET": BUCKET,
            "STEP_S": "0",
        }

    def result(self, kind: str, job_id: str) -> bytes:
        key = f"comfyui-results/{kind}/{job_id}/output.png"
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def _listening_port(upstream: Upstream) -> int | None:
    ports = [line["port"] for line in upstream.log() if line["event"] == "upstream.listening"]
    return int(ports[0]) if ports else None


@asynccontextmanager
async def open_world(tmp_path: Path) -> AsyncIterator[World]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    s3: S3Client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )
    s3.create_bucket(Bucket=BUCKET)
    try:
        async with ImageHost() as images:
            world = World(s3, url, images, tmp_path)
            try:
                yield world
            finally:
                for upstream in world.started:
                    await upstream.kill()
    finally:
        s3.close()
        server.stop()
