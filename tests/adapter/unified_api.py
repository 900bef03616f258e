"""A Unified API that does what a test tells it to: the wire and the answers are real, the GPU is a dictionary."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web

from services.devstack.ports import ReservedPort

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]

RESULT = "s3://results/comfyui-results/qwen-image-edit/1/output.png"


@dataclass(frozen=True, slots=True)
class Submission:
    """A POST that arrived, whether or not it was answered."""

    api_path: str
    body: Any
    headers: dict[str, str]


@dataclass(eq=False)
class UnifiedApi:
    """By default polite: it accepts a job, says it is in work until `end` or `fail` is called, and then how it ended.

    Attributes:
        comfyui_status: what `/health` says.
        blocks: whether everything hangs while a job is in work, as with the real one.
        on_health, on_submit, on_look: what it does with a request, to be replaced by a test.
        submissions: every POST that arrived.
        looks: ids that were asked for.
        runs: the jobs that were started: upstream ids in order. What costs GPU time.
        prompts: of those runs.
        ends_at_once: whether a job is over as soon as it is accepted.
        peers: the client's end of each connection that brought a request.
    """

    port: ReservedPort
    comfyui_status: str = "healthy"
    blocks: bool = False
    ends_at_once: bool = False
    submissions: list[Submission] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    healths: int = 0
    peers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.on_health: Behaviour = self.say_health
        self.on_submit: Behaviour = self.accept
        self.on_look: Behaviour = self.show
        self._jobs: dict[str, dict[str, Any]] = {}
        self._in_work: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.number}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self._take_health)
        app.router.add_post("/{path:.*}", self._take_submission)
        app.router.add_get("/api/v1/jobs/{job_id:.*}", self._take_look)
        # What still hangs at the end is hung up on (0 would wait for it).
        self._runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port.number).start()

    async def stop(self) -> None:
        """Like SIGKILL: connections break, nobody listens, all jobs are forgotten."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None
        self._jobs.clear()
        self._in_work.clear()
        self._idle.set()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def end(self, job_id: str, *, result_s3_uri: str | None = RESULT) -> None:
        self._close(job_id, {"status": "completed", "result_s3_uri": result_s3_uri})

    def fail(self, job_id: str, error: str | None) -> None:
        self._close(job_id, {"status": "failed", "error": error})

    async def say_health(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "healthy", "comfyui_status": self.comfyui_status})

    async def accept(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.take_in(await prompt_of(request)))

    def take_in(self, prompt: str = "") -> dict[str, Any]:
        """Start a run; the answer to its POST."""
        job_id = str(uuid4())
        self.runs.append(job_id)
        self.prompts.append(prompt)
        job = {"job_id": job_id, "status": "pending", "result_s3_uri": None, "error": None}
        self._jobs[job_id] = job | {"status": "processing"}
        self._in_work.add(job_id)
        if self.ends_at_once:
            self.end(job_id)
        elif self.blocks:
            self._idle.clear()
        return job

    async def show(self, request: web.Request) -> web.StreamResponse:
        job = self._jobs.get(request.match_info["job_id"])
        if job is None:
            return web.json_response({"detail": "Job not found"}, status=404)
        return web.json_response(job)

    def _close(self, job_id: str, end: dict[str, Any]) -> None:
        self._jobs[job_id] |= end
        self._in_work.discard(job_id)
        if not self._in_work:
            self._idle.set()

    async def _take_health(self, request: web.Request) -> web.StreamResponse:
        self.healths += 1
        self._note_peer(request)
        await self._idle.wait()
        return await self.on_health(request)

    async def _take_submission(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._note_peer(request)
        await self._idle.wait()
        self.submissions.append(Submission(request.path, body, dict(request.headers)))
        return await self.on_submit(request)

    async def _take_look(self, request: web.Request) -> web.StreamResponse:
        self.looks.append(request.match_info["job_id"])
        self._note_peer(request)
        await self._idle.wait()
        return await self.on_look(request)

    def _note_peer(self, request: web.Request) -> None:
        self.peers.append(_transport(request).get_extra_info("peername"))


@asynccontextmanager
async def unified_api() -> AsyncIterator[UnifiedApi]:
    with ReservedPort() as port:
        api = UnifiedApi(port)
        await api.start()
        try:
            yield api
        finally:
            await api.stop()


async def prompt_of(request: web.Request) -> str:
    """The prompt in a submission."""
    return str((await request.json()).get("prompt"))


def answering(status: int, body: Any = None, *, text: str | None = None, **headers: str) -> Behaviour:
    """Answers with JSON, or with a text as it is."""

    async def answer(request: web.Request) -> web.StreamResponse:
        content = json.dumps(body) if text is None else text
        return web.Response(status=status, text=content, content_type="application/json", headers=headers)

    return answer


def showing(status: str, **members: Any) -> Behaviour:
    """Answers with the job that is asked for, or job-1, in that state."""

    async def answer(request: web.Request) -> web.StreamResponse:
        job_id = request.match_info.get("job_id", "job-1")
        return web.json_response({"job_id": job_id, "status": status, "result_s3_uri": None, "error": None} | members)

    return answer


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour per request; the last one stays."""
    rest = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))

    async def behave(request: web.Request) -> web.StreamResponse:
        return await next(rest)(request)

    return behave


async def hang(request: web.Request) -> web.StreamResponse:
    """No answer, until the client or the server goes."""
    await asyncio.Event().wait()
    raise AssertionError


async def disconnect(request: web.Request) -> web.StreamResponse:
    """The connection ends in peace, without an answer."""
    _transport(request).close()
    return web.Response()


async def reset(request: web.Request) -> web.StreamResponse:
    """The connection is torn: RST."""
    connection = _transport(request).get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _transport(request).abort()
    return web.Response()


async def break_off(request: web.Request) -> web.StreamResponse:
    """The connection is torn in the middle of the answer's body."""
    answer = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'{"job_id": "job-1", "sta')
    return await reset(request)


async def speak_no_http(request: web.Request) -> web.StreamResponse:
    """Bytes that are no HTTP."""
    transport = _transport(request)
    transport.write(b"+PONG\r\n\r\n")
    transport.close()
    return web.Response()


def _transport(request: web.Request) -> asyncio.Transport:
    assert isinstance(request.transport, asyncio.Transport)
    return request.transport
