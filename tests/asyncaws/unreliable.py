"""AWS on a bad day: a server that forwards to the emulator, but first gives each request the fate it was told to.

Nothing of ours is replaced: what fails is the wire.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import aiohttp
from aiohttp import web

_JSON = "application/x-amz-json-1.0"


class Fate(Enum):
    """What becomes of one request."""

    FORWARDED = auto()
    SAID_TO_BE_A_WEB_PAGE = auto()
    HALF_ANSWERED = auto()
    RESET = auto()
    LEFT_HANGING = auto()
    DONE_BUT_NOT_ANSWERED = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The fate of being refused by AWS itself."""

    status: int
    code: str


@dataclass(frozen=True, slots=True)
class Abridged:
    """The fate of a batch of which AWS takes only the first few: for now, or for good if the rest is `sender_fault`."""

    count: int
    sender_fault: bool = False
    code: str = "InternalError"


THROTTLED = Refusal(400, "ThrottlingException")
UNAVAILABLE = Refusal(503, "ServiceUnavailable")
DENIED = Refusal(400, "AccessDeniedException")


Doom = Fate | Refusal | Abridged


class UnreliableAws:
    """Deals out fates in order; without one left, every request has the fate `otherwise`.

    Attributes:
        calls: the operations that were asked for, in order, repetitions included.
        bodies: what was sent with those of DynamoDB and SQS.
        arrived: set by the first call.
        hanging: set while a request is left without an answer.
    """

    def __init__(self, backend: aiohttp.ClientSession, *fates: Doom) -> None:
        self.fates = deque(fates)
        self.otherwise: Doom = Fate.FORWARDED
        self.calls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.arrived = asyncio.Event()
        self.hanging = asyncio.Event()
        self._backend = backend
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    def serve_at(self, url: str) -> None:
        self._url = url

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.calls.append(_operation(request, body))
        if _speaks_json(request):
            self.bodies.append(json.loads(body))
        self.arrived.set()
        fate = self.fates.popleft() if self.fates else self.otherwise
        match fate:
            case Refusal():
                return _refuse(request, fate)
            case Abridged():
                return await self._abridge(request, json.loads(body), fate)
            case Fate.SAID_TO_BE_A_WEB_PAGE:
                return web.Response(text="<html><body>Please log in", content_type="text/html")
            case Fate.HALF_ANSWERED:
                return await _half_an_answer(request)
            case Fate.RESET:
                return _reset(request)
            case Fate.LEFT_HANGING:
                self.hanging.set()
                await asyncio.Event().wait()
            case Fate.DONE_BUT_NOT_ANSWERED:
                await self._forward(request, body)
                return _reset(request)
        return await self._forward(request, body)

    async def _abridge(self, request: web.Request, asked: dict[str, Any], fate: Abridged) -> web.Response:
        """What is left over stands in the answer, as the pages of BatchGetItem and SendMessageBatch have it."""
        count = fate.count
        remark: dict[str, Any]
        if "Entries" in asked:
            left_over = asked["Entries"][count:]
            failed = [{"Id": entry["Id"], "SenderFault": fate.sender_fault, "Code": fate.code} for entry in left_over]
            asked, remark = {**asked, "Entries": asked["Entries"][:count]}, {"Failed": failed}
        else:
            ((table, wanted),) = asked["RequestItems"].items()
            left = {table: {**wanted, "Keys": wanted["Keys"][count:]}}
            asked = {"RequestItems": {table: {**wanted, "Keys": wanted["Keys"][:count]}}}
            remark = {"UnprocessedKeys": left}
        answer = await self._forward(request, json.dumps(asked).encode())
        assert isinstance(answer.body, bytes)
        answer.text = json.dumps({**json.loads(answer.body), **remark})
        return answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        async with self._backend.request(request.method, request.path_qs, data=body, headers=headers) as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower().startswith("x-amz") or name.lower() == "content-type"
            }
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


@asynccontextmanager
async def unreliable_aws(endpoint: str, *fates: Doom) -> AsyncIterator[UnreliableAws]:
    """Serve an unreliable way to the AWS at `endpoint`."""
    async with aiohttp.ClientSession(base_url=endpoint) as backend:
        aws = UnreliableAws(backend, *fates)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", aws.handle)
        # Requests that hang are hung up on, at the end; nobody waits for them.
        runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            aws.serve_at(f"http://{host}:{port}")
            yield aws
        finally:
            await runner.cleanup()


def _speaks_json(request: web.Request) -> bool:
    return "X-Amz-Target" in request.headers


def _operation(request: web.Request, body: bytes) -> str:
    if _speaks_json(request):
        return request.headers["X-Amz-Target"].rpartition(".")[2]
    return body.decode().partition("Action=")[2].partition("&")[0]


def _refuse(request: web.Request, refusal: Refusal) -> web.Response:
    if _speaks_json(request):
        text = f'{{"__type": "{refusal.code}", "message": "no"}}'
        return web.Response(status=refusal.status, text=text, content_type=_JSON)
    text = f"<Response><Errors><Error><Code>{refusal.code}</Code><Message>no</Message></Error></Errors></Response>"
    return web.Response(status=refusal.status, text=text, content_type="text/xml")


async def _half_an_answer(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": _JSON, "Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'{"Item": {"task')
    _reset(request)
    return answer


def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
