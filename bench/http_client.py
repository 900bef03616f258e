"""The least that asks over HTTP/1.1: bytes out, status and body in, on a connection that is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httptools


@dataclass(frozen=True, slots=True)
class Answer:
    """Attributes: retry_after_s: when to come back, 0 if nothing was said of it."""

    status: int
    body: bytes
    retry_after_s: float = 0.0


class Client(asyncio.Protocol):
    """One virtual client: one request at a time, one connection, opened anew when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._retry_after_s = 0.0
        self._answered: asyncio.Future[Answer] | None = None

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()
            await asyncio.sleep(0)

    async def ask(self, request: bytes) -> Answer:
        """Send one complete request and wait for its answer.

        Raises:
            ConnectionError: the connection broke before the answer was complete.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            transport = await self._connect()
        self._answered = asyncio.get_running_loop().create_future()
        transport.write(request)
        try:
            return await self._answered
        finally:
            if not self._answered.done() or self._answered.cancelled():
                transport.abort()  # an answer that comes later must not be taken for the next one
            self._answered = None

    async def trickle(self, head: bytes, body: bytes, pause_s: float) -> None:
        """Send a request byte by byte, as somebody on a bad line does; the answer is not waited for."""
        transport = self._transport or await self._connect()
        transport.write(head)
        for byte in body:
            await asyncio.sleep(pause_s)
            transport.write(bytes((byte,)))

    async def _connect(self) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)
        return transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after_s = float(value)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer = Answer(self._parser.get_status_code(), bytes(self._body), self._retry_after_s)
        self._retry_after_s = 0.0
        self._body.clear()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(answer)


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """The bytes of a request; `headers` are lines that end with CRLF."""
    return head(method, path, len(body), headers) + body


def head(method: str, path: str, length: int, headers: str = "") -> bytes:
    """The same without the body."""
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {length}\r\n\r\n".encode()
