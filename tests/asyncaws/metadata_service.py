"""The metadata service of EC2, IMDSv2 only, on a bad day: what a process gets its credentials from."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

REFUSES = "refuses"
_WELL = "well"
# How it may answer the first requests of a process, which then gets its credentials all the same.
BEGINNINGS = ("slow", "slow slow", "slow slow slow slow", "refuses garbage refuses")
_ROLE_PATH = "/latest/meta-data/iam/security-credentials/"
FAR_AWAY = "2099-01-01T00:00:00Z"


def in_minutes(minutes: float) -> str:
    """A time as the service writes it."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


class MetadataService:
    """Says who the instance is.

    Attributes:
        first: how it answers the next requests for a token,
        then: and all after those.
        expirations: what it says in the next credentials; then they last.
        tokens: how many tokens it was asked for.
        issued: how many credentials it gave: `key-1`, `key-2`, ...
    """

    def __init__(self, url: str, first: Iterable[str], expirations: Iterable[Any]) -> None:
        self.url = url
        self.first = deque(first)
        self.then = _WELL
        self.expirations = deque(expirations)
        self.tokens = 0
        self.issued = 0

    @property
    def environment(self) -> Mapping[str, str | None]:
        """How a process is told of it; None takes a variable away."""
        return {
            "AWS_ACCESS_KEY_ID": None,
            "AWS_SECRET_ACCESS_KEY": None,
            "AWS_EC2_METADATA_DISABLED": None,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url,
            "AWS_METADATA_SERVICE_TIMEOUT": "1",  # the least it can be
            "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1",
        }

    async def token(self, _request: web.Request) -> web.Response:
        self.tokens += 1
        match self.first.popleft() if self.first else self.then:
            case "slow":
                await asyncio.Event().wait()
            case "refuses":
                return web.Response(status=403)
            case "garbage":
                return web.Response(text="\N{SNOWMAN}" * 20)
        return web.Response(text="a-token")

    async def role(self, request: web.Request) -> web.Response:
        return web.Response(text="a-role") if _has_token(request) else web.Response(status=401)

    async def credentials(self, request: web.Request) -> web.Response:
        if not _has_token(request):
            return web.Response(status=401)
        self.issued += 1
        members = {
            "AccessKeyId": f"key-{self.issued}",
            "SecretAccessKey": "secret",
            "Token": "t",
            "Expiration": self.expirations.popleft() if self.expirations else FAR_AWAY,
        }
        return web.json_response({"Code": "Success", **members})


def _has_token(request: web.Request) -> bool:
    return request.headers.get("X-aws-ec2-metadata-token") == "a-token"


@asynccontextmanager
async def metadata_service(*first: str, expirations: Iterable[Any] = ()) -> AsyncIterator[MetadataService]:
    """Serve it; what hangs at the end is hung up on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = MetadataService(f"http://127.0.0.1:{listener.getsockname()[1]}", first, expirations)
        app = web.Application()
        app.router.add_put("/latest/api/token", service.token)
        app.router.add_get(_ROLE_PATH, service.role)
        app.router.add_get(f"{_ROLE_PATH}a-role", service.credentials)
        runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        try:
            yield service
        finally:
            await runner.cleanup()
