"""What stands between adapter and Unified API in a soak: it delays, resets, loses answers, and talks nonsense."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from random import Random

import aiohttp
from aiohttp import web

from services.devstack.ports import ReservedPort

_LONGEST_DELAY_S = 1.5


class Vice(StrEnum):
    """What may happen to one request."""

    DELAY = "delay"
    RESET = "reset"  # the connection is cut before the upstream hears of it
    DROP_ANSWER = "drop answer"  # the upstream has done it, and nobody is told
    ERROR = "error"  # 503 without asking the upstream
    GARBAGE = "garbage"  # 200 with something that is no job, without asking the upstream


class UpstreamProxy:
    """One HTTP address in front of another.

    Attributes:
        target: base address of the real one; set once it is known.
        probability: that a request meets a vice.
        met: how often each vice was met, by request method.
    """

    def __init__(self, session: aiohttp.ClientSession, *, port: int, random: Random) -> None:
        self._session = session
        self._random = random
        self.port = port
        self.target = ""
        self.probability = 0.0
        self.met: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        vice = self._random.choice(list(Vice)) if self._random.random() < self.probability else None
        if vice is not None:
            self.met[f"{request.method} {vice}"] += 1
        match vice:
            case Vice.RESET:
                return _cut(request)
            case Vice.ERROR:
                return web.Response(status=503, text="upstream connect error")
            case Vice.GARBAGE:
                return web.Response(text="<html>It works!</html>", content_type="text/html")
            case Vice.DELAY:
                await asyncio.sleep(self._random.uniform(0.1, _LONGEST_DELAY_S))
        try:
            answer = await self._forward(request)
        except aiohttp.ClientError:
            return _cut(request)
        return _cut(request) if vice is Vice.DROP_ANSWER else answer

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() in _FORWARDED}
        async with self._session.request(
            request.method, f"{self.target}{request.path_qs}", data=body, headers=headers
        ) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type or "text/plain"
            )


_FORWARDED = frozenset({"content-type", "x-request-id"})


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


@asynccontextmanager
async def upstream_proxy(random: Random) -> AsyncIterator[UpstreamProxy]:
    """A proxy that listens for the length of the block."""
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    with ReservedPort() as reserved:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            proxy = UpstreamProxy(session, port=reserved.number, random=random)
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", proxy.handle)
            # A handler whose client is gone goes on, as a real upstream would: the effect happens all the same.
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", proxy.port).start()
            try:
                yield proxy
            finally:
                await runner.cleanup()
