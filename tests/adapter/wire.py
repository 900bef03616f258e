"""The wire between an adapter and AWS, on which a test can hold back, lose or spoil single calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

import aiohttp
from aiohttp import web

_JSON = "application/x-amz-json-1.0"


class Fate(Enum):
    """What becomes of a call."""

    UNAVAILABLE = auto()
    FORBIDDEN = auto()
    EXPIRED = auto()  # refused over a token that is just being renewed
    HELD_BEFORE = auto()  # neither done nor answered
    HELD_AFTER = auto()  # done, not answered
    LOST_AFTER = auto()  # done, the connection breaks instead of the answer


@dataclass(frozen=True, slots=True)
class Call:
    """A call that arrived."""

    operation: str
    task_id: str | None
    text: str


@dataclass(eq=False)
class Trouble:
    """A fate for calls of one operation.

    Attributes:
        part: text that the call must contain, e.g. a name in its update expression.
        task_id: whose calls; those of every task if None. A queue's receipt stands for the task in its message.
        times: how many calls; all if None.
        met: set when the first call meets it.
        met_count: how many have.
    """

    operation: str
    fate: Fate
    part: str = ""
    task_id: str | None = None
    times: int | None = None
    met: asyncio.Event = field(default_factory=asyncio.Event)
    met_count: int = 0

    def concerns(self, call: Call) -> bool:
        if call.operation != self.operation or self.part not in call.text:
            return False
        if self.task_id is not None and self.task_id != call.task_id:
            return False
        return self.times is None or self.met_count < self.times

    def meet(self) -> None:
        self.met_count += 1
        self.met.set()


class Wire:
    """Forwards to AWS.

    Attributes:
        calls: everything that was asked for, in order, repetitions included.
    """

    def __init__(self, backend: aiohttp.ClientSession) -> None:
        self.calls: list[Call] = []
        self.url = ""
        self._troubles: list[Trouble] = []
        self._backend = backend
        self._task_ids: dict[str, str] = {}

    def order(
        self, operation: str, fate: Fate, *, part: str = "", task_id: str | None = None, times: int | None = None
    ) -> Trouble:
        trouble = Trouble(operation, fate, part, task_id, times)
        self._troubles.append(trouble)
        return trouble

    def clear(self) -> None:
        """Calls from now on are forwarded."""
        self._troubles.clear()

    def count(self, operation: str, *, part: str = "", task_id: str | None = None) -> int:
        return sum(
            call.operation == operation and part in call.text and task_id in (None, call.task_id) for call in self.calls
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        call = Call(operation, self._task_of(json.loads(body)), body.decode())
        self.calls.append(call)
        if operation == "ReceiveMessage":
            return await self._receive(request, body)
        trouble = self._trouble_for(call)
        if trouble is not None and trouble.fate is Fate.UNAVAILABLE:
            trouble.meet()
            return web.Response(status=503, text='{"__type": "ServiceUnavailable"}', content_type=_JSON)
        if trouble is not None and trouble.fate is Fate.FORBIDDEN:
            trouble.meet()
            return web.Response(status=400, text='{"__type": "AccessDeniedException"}', content_type=_JSON)
        if trouble is not None and trouble.fate is Fate.EXPIRED:
            trouble.meet()
            return web.Response(status=400, text='{"__type": "ExpiredTokenException"}', content_type=_JSON)
        if trouble is not None and trouble.fate is Fate.HELD_BEFORE:
            return await self._meet(trouble, request)
        answer = await self._forward(request, body)
        return answer if trouble is None else await self._meet(trouble, request)

    async def _receive(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Whose call it is, only the answer tells: it can be lost or held, but not prevented."""
        answer = await self._forward(request, body)
        received = json.loads(answer.text or "{}").get("Messages", [])
        task_id = self._task_ids.get(received[0]["ReceiptHandle"]) if received else None
        trouble = self._trouble_for(Call("ReceiveMessage", task_id, body.decode()))
        return answer if trouble is None or task_id is None else await self._meet(trouble, request)

    def _trouble_for(self, call: Call) -> Trouble | None:
        return next((trouble for trouble in self._troubles if trouble.concerns(call)), None)

    async def _meet(self, trouble: Trouble, request: web.Request) -> web.StreamResponse:
        trouble.meet()
        if trouble.fate is not Fate.LOST_AFTER:
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def _task_of(self, arguments: dict[str, object]) -> str | None:
        match arguments:
            case {"Key": {"task_id": {"S": str(task_id)}}} | {"Item": {"task_id": {"S": str(task_id)}}}:
                return task_id
            case {"ReceiptHandle": str(receipt)}:
                return self._task_ids.get(receipt)
            case _:
                return None

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with self._backend.post(request.path_qs, data=body, headers=headers) as answer:
            content = await answer.read()
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower().startswith("x-amz") or name.lower() == "content-type"
            }
            self._learn_receipts(content)
            return web.Response(status=answer.status, body=content, headers=kept)

    def _learn_receipts(self, content: bytes) -> None:
        for message in json.loads(content or b"{}").get("Messages", []):
            try:
                self._task_ids[message["ReceiptHandle"]] = json.loads(message["Body"])["task_id"]
            except (ValueError, TypeError, KeyError):
                continue  # a poison message


@asynccontextmanager
async def wire_to(endpoint_url: str) -> AsyncIterator[Wire]:
    """Serve a wire to the AWS at `endpoint_url`."""
    async with aiohttp.ClientSession(base_url=endpoint_url) as backend:
        wire = Wire(backend)
        app = web.Application(client_max_size=2**20)
        app.router.add_post("/{path:.*}", wire.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            wire.url = f"http://{host}:{port}"
            yield wire
        finally:
            await runner.cleanup()
