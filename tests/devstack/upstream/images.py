"""A web server of images, some of whose answers the test holds back."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiohttp import web

import services.devstack

DEADLINE_S = 20.0

_SAMPLES = Path(services.devstack.__file__).parent / "samples"


@dataclass(slots=True)
class Gate:
    """An image that is delivered when the test opens it: until then the job that fetches it is running."""

    url: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_until_reached(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.reached.wait()

    def open(self) -> None:
        self.opened.set()


class ImageHost:
    """Images over HTTP: `/sample/<file>`, `/gate/<n>`, `/garbage`, `/truncated`, `/drip`, `/silent`; else 404."""

    def __init__(self) -> None:
        self.url = ""
        self._gates: list[Gate] = []
        app = web.Application()
        app.router.add_get("/sample/{name}", self._serve_sample)
        app.router.add_get("/gate/{number}", self._serve_gated)
        app.router.add_get("/garbage", self._serve_garbage)
        app.router.add_get("/truncated", self._serve_truncated)
        app.router.add_get("/drip", self._drip)
        app.router.add_get("/silent", self._stay_silent)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.open()
        await self._runner.cleanup()

    def sample(self, name: str = "house-on-a-hill.jpg") -> str:
        return f"{self.url}/sample/{name}"

    def gate(self) -> Gate:
        gate = Gate(f"{self.url}/gate/{len(self._gates)}")
        self._gates.append(gate)
        return gate

    async def _serve_sample(self, request: web.Request) -> web.Response:
        return web.Response(body=read_sample(request.match_info["name"]))

    async def _serve_gated(self, request: web.Request) -> web.Response:
        gate = self._gates[int(request.match_info["number"])]
        gate.reached.set()
        await gate.opened.wait()
        return web.Response(body=read_sample())

    async def _serve_garbage(self, _request: web.Request) -> web.Response:
        return web.Response(body=b"\x89PNG no picture")

    async def _serve_truncated(self, _request: web.Request) -> web.Response:
        return web.Response(body=read_sample()[:2000])

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        content = read_sample()
        for start in range(0, len(content), len(content) // 11):
            await asyncio.sleep(0.1)
            await response.write(content[start : start + len(content) // 11])
        return response

    async def _stay_silent(self, _request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError


def read_sample(name: str = "house-on-a-hill.jpg") -> bytes:
    return (_SAMPLES / name).read_bytes()
