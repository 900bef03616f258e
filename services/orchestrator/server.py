"""uvicorn under our own supervision."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from lib.daemon.supervision import CannotStart

# An ALB keeps its connections for 60 s; if we close first, it answers 502 now and then.
_KEEP_ALIVE_S = 75
_BACKLOG = 512


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _spare_the_garbage_collector()
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which asks all its parts to stop, not only this one."""
        yield


def _listeners(host: str, port: int) -> list[socket.socket]:
    """Bound here, since uvicorn would log why it cannot, and then end the whole process on the spot."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = dict.fromkeys((family, where[:2]) for family, _, _, _, where in found)
        return [socket.create_server(where, family=family, backlog=_BACKLOG) for family, where in addresses]
    except OSError as error:
        raise CannotStart(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _spare_the_garbage_collector() -> None:
    """What is loaded stays, so it need not be looked through again and again: those looks were the longest pauses, over
    0.1 s, at which every open request waits. https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """One listening address.

    Attributes:
        drain_s: how long open requests may take after a stop; then their connections are closed.
    """

    app: ASGIApp
    host: str
    port: int
    drain_s: float

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Serve until `stop`, then finish what is open.

        Args:
            on_ready: called once when connections are accepted.

        Raises:
            CannotStart: the address cannot be bound.
        """
        server = _Server(self._config(), on_ready)
        serving = asyncio.create_task(server.serve(_listeners(self.host, self.port)), name="uvicorn")
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await serving
        finally:
            stopping.cancel()

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self.app,
            host=self.host,
            port=self.port,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(self.drain_s)),
        )
