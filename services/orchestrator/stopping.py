"""The last answer to a request that a stop did not wait for."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.orchestrator.errors import Stopping
from services.orchestrator.problems import problem_of, render


class StopAnswer:
    """ASGI middleware: a request that is cancelled, as the server does when its drain is over, is told to come back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except asyncio.CancelledError:
            if has_begun or scope["type"] != "http":
                raise
            await render(Request(scope), problem_of(Stopping()))(scope, receive, send)
