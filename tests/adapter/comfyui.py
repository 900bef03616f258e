"""A ComfyUI that says what a test tells it to of its queue and its history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from services.devstack.ports import ReservedPort
from tests.adapter.unified_api import Behaviour


@dataclass(eq=False)
class ComfyUi:
    """By default idle, with an empty history.

    Attributes:
        asked: paths and queries that were asked for.
    """

    port: ReservedPort
    running: list[Any] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.on_queue: Behaviour = self.say_queue
        self.on_history: Behaviour = self.say_history

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.number}"

    def end(self, job_id: str, *, error: str | None = None) -> None:
        """The prompt that the Unified API queued for this job has ended."""
        messages = [["execution_start", {}]]
        if error is not None:
            messages.append(["execution_error", {"node_type": "LoadImage", "exception_message": error}])
        graph = {"78": {"class_type": "LoadImage", "inputs": {"image": f"{job_id}_image1.jpg"}}}
        self.history[f"prompt-{len(self.history)}"] = {
            "prompt": [len(self.history), "prompt", graph, {"client_id": "c"}, ["80"]],
            "outputs": {},
            "status": {"status_str": "success" if error is None else "error", "messages": messages},
        }

    async def say_queue(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"queue_running": self.running, "queue_pending": []})

    async def say_history(self, request: web.Request) -> web.StreamResponse:
        last = int(request.query["max_items"])
        return web.json_response(dict(list(self.history.items())[-last:]))

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        return await (self.on_queue if request.path == "/queue" else self.on_history)(request)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[ComfyUi]:
        app = web.Application()
        app.router.add_get("/queue", self._take)
        app.router.add_get("/history", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port.number).start()
        try:
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def comfyui() -> AsyncIterator[ComfyUi]:
    with ReservedPort() as port:
        async with ComfyUi(port).listening() as listening:
            yield listening
