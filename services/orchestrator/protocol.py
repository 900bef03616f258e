"""HTTP/1.1 with bounds: uvicorn's protocol has none for bytes, seconds, or what follows an answer."""

from __future__ import annotations

import asyncio
import math
import uuid
from enum import Enum, auto
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.orchestrator.connections import ConnectionLimits, Connections, Place
from services.orchestrator.errors import (
    HeadTooLarge,
    MalformedRequest,
    RequestTooSlow,
    TooManyConnections,
    TunnelRefused,
    UnreadableRequest,
)
from services.orchestrator.problems import as_bytes, problem_of
from services.orchestrator.upgrade import head_without_upgrade

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent

HEALTH_PATHS = frozenset({"/health", "/api/v1/health"})

_LINE_BYTES = 4  # of a header: colon, space, and the end of its line

log = structlog.stdlib.get_logger(__name__)


class _Stage(Enum):
    """Where the client is with what it sends."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class _Cycle(RequestResponseCycle):
    """One request and its answer.

    Attributes:
        lingers: the answer began before the request had ended, so the connection ends with it.
        failure: why the rest of the body will not be read.
    """

    lingers = False
    failure: UnreadableRequest | None = None

    def fail(self, failure: UnreadableRequest) -> None:
        """Let the application say what is wrong, to whoever waits for its answer."""
        self.failure = failure
        self.message_event.set()

    async def run_asgi(self, app: ASGI3Application) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            # The application has answered and logged what it could; this is one that it could not end.
            log.error("request.broken_off", error=type(error).__name__)  # noqa: TRY400
        finally:
            self.on_response = lambda: None
            if not self.response_complete and not self.disconnected:
                self.transport.close()

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if self.failure is not None and self.more_body:
            raise self.failure
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] != "http.response.start" or not self.more_body:
            await super().send(message)
            return
        self.lingers = True
        headers = [*message.get("headers", ()), (b"connection", b"close")]
        await super().send({**message, "headers": headers})
        # Or the connection would be closed over what is still on its way, and the answer be lost to a reset.
        self.keep_alive = True


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Deadlines are looked at by `check`, which somebody calls every second or so."""

    cycle: _Cycle | None  # type: ignore[assignment]

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        register: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._register = register
        self._place = Place.NONE
        self._stage = _Stage.BETWEEN
        self._deadline = math.inf
        self._write_deadline = math.inf
        # Since a head, or a piece of a body, was complete.
        self._unheard_bytes = 0
        self._is_leaving = False
        self._discarded_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.time() + self._limits.head_s
        self._place = self._register.admit(self, self.client[0] if self.client else "")
        if self._place is Place.NONE:
            log.warning("connection.refused", client=self.client, open=len(self._register))
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._register.remove(self)
        super().connection_lost(exc)

    def hang_up(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def check(self, now: float) -> None:
        """End what takes too long."""
        if now >= self._write_deadline or (now >= self._deadline and self.transport.is_closing()):
            self.transport.abort()
        elif now >= self._deadline:
            self._deadline = now + self._limits.stall_s
            if self._stage is _Stage.BETWEEN:
                self.transport.close()
            else:
                self._refuse(RequestTooSlow())

    def pause_writing(self) -> None:
        self._write_deadline = self.loop.time() + self._limits.stall_s
        super().pause_writing()

    def resume_writing(self) -> None:
        self._write_deadline = math.inf
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._is_leaving:
            self._discard(len(data))
            return
        self._unheard_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, UnreadableRequest) else MalformedRequest())
        else:
            if self._unheard_bytes > self._limits.head_bytes:
                self._refuse(HeadTooLarge(self._limits.head_bytes))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser stops here and takes the body for another protocol's.
            head = head_without_upgrade(
                self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers
            )
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._feed(head + data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage = _Stage.HEAD
        self._deadline = self.loop.time() + self._limits.head_s

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, and nobody reads them: as headers they would come after all checks of headers.
        if self._stage is _Stage.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise TunnelRefused
            return
        self._unheard_bytes = 0
        self._check_size_of_head()
        self._fill_scope()
        if self._place is Place.SPARE and self.scope["path"].rstrip("/") not in HEALTH_PATHS:
            raise TooManyConnections
        if self.cycle is not None and (self.cycle.lingers or len(self.pipeline) >= self._limits.pipelined):
            raise MalformedRequest
        self._stage = _Stage.BODY
        self._deadline = self.loop.time() + self._limits.body_s
        self._register.work(self)
        self._begin_cycle()

    def _check_size_of_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + _LINE_BYTES for name, value in self.headers)
        if size > self._limits.head_bytes:
            raise HeadTooLarge(self._limits.head_bytes)

    def _fill_scope(self) -> None:
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = self.parser.get_http_version()
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""

    def _begin_cycle(self) -> None:
        before = self.cycle
        self.cycle = _Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=self.scope["http_version"] != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        self._deadline += len(body) / self._limits.body_rate
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._unheard_bytes = 0
        self._stage = _Stage.BETWEEN
        self._deadline = math.inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._deadline = self.loop.time() + self._limits.stall_s
        elif self.cycle is not None and self.cycle.lingers:
            self._leave()
        else:
            self._go_on()

    def _go_on(self) -> None:
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._register.rest(self)
        if self._stage is _Stage.BETWEEN:
            self._deadline = self.loop.time() + self._limits.idle_s

    def _refuse(self, error: UnreadableRequest) -> None:
        """Say what is wrong with what came last, and read no more."""
        if self.cycle is None or self.cycle.response_complete:
            problem = problem_of(error)
            log.warning("request.refused", status=problem.status, reason=str(error), client=self.client)
            self.transport.write(as_bytes(problem, request_id=str(uuid.uuid4())))
            self._leave()
            return
        self._is_leaving = True
        self._deadline = math.inf
        if self.cycle.more_body:
            self.cycle.fail(error)
        else:
            # What came before is answered first.
            self.cycle.keep_alive = False

    def _leave(self) -> None:
        """Tell the client that nothing follows, and give it a moment to stop sending and to read."""
        self._is_leaving = True
        self._deadline = math.inf
        self._register.rest(self)
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(self._limits.linger_s, self.transport.abort)

    def _discard(self, number: int) -> None:
        self._discarded_bytes += number
        if self._discarded_bytes > self._limits.linger_bytes:
            self.transport.abort()
