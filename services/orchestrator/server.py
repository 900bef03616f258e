"""uvicorn under our own supervision."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from lib.daemon.supervision import CannotStart
from services.orchestrator.connections import ConnectionLimits, Connections, most_connections
from services.orchestrator.protocol import BoundedProtocol

# Small, since so many are accepted before the first of them is counted.
_ACCEPTED_AT_ONCE = 128
# In the kernel, until then; whom it drops tries again after a second, and then after two more.
_BACKLOG = 1024
# For requests that were cut off, to say so.
_CUT_OFF_S = 1.0


log = structlog.stdlib.get_logger(__name__)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def check_connections(self, every_s: float) -> None:
        """Until cancelled, end what takes too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_s)
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.check(loop.time())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # Requests that were cut off answer that themselves.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_CUT_OFF_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # asyncio has one number for both.
        for listening in sockets or ():
            listening.listen(_BACKLOG)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which asks all its parts to stop, not only this one."""
        yield


def listeners(host: str, port: int) -> list[socket.socket]:
    """Bound here, since uvicorn would log why it cannot, and then end the whole process on the spot.

    Raises:
        CannotStart: the address is taken, or not ours.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = dict.fromkeys((family, where[:2]) for family, _, _, _, where in found)
        return [_listener(family, where) for family, where in addresses]
    except OSError as error:
        raise CannotStart(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _listener(family: int, where: Any) -> socket.socket:
    """Its connections inherit the option, which asyncio sets for sockets made with a protocol number only.

    Without it the second packet of an answer waits until the client has acknowledged the first: 40 ms.
    """
    listener = socket.create_server(where, family=family, backlog=_BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def spare_the_garbage_collector() -> None:
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
        drain_s: how long open requests may take after a stop; then they are answered that the service stops.
        limits: of connections; fewer are open at once where the process may open fewer files.
    """

    app: ASGIApp
    host: str
    port: int
    drain_s: float
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Serve until `stop`, then finish what is open.

        Args:
            on_ready: called once when connections are accepted.

        Raises:
            CannotStart: the address cannot be bound.
        """
        server = _Server(self._config(), on_ready)
        serving = asyncio.create_task(server.serve(listeners(self.host, self.port)), name="uvicorn")
        stopping = asyncio.create_task(stop.wait())
        checking = asyncio.create_task(server.check_connections(self.limits.check_s), name="connections")
        try:
            await asyncio.wait({serving, stopping, checking}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await serving
            if checking.done():
                checking.result()
        finally:
            stopping.cancel()
            checking.cancel()

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self.app,
            host=self.host,
            port=self.port,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            http=self._protocol(),
            ws="none",
            backlog=_ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=max(1, round(self.drain_s)),
        )

    def _protocol(self) -> type[asyncio.Protocol]:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = most_connections(self.limits.connections, descriptors=descriptors)
        if most < self.limits.connections:
            log.warning("server.few_descriptors", descriptors=descriptors, connections=most)
        limits = replace(self.limits, connections=most)
        made = partial(BoundedProtocol, limits=limits, register=Connections(limits))
        return cast("type[asyncio.Protocol]", made)
