"""One line per request, and the traceback of one that failed."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.daemon.log_quota import LogQuota
from services.orchestrator.meter import SILENT, Meter

# Asked every few seconds by load balancers; worth a line only when somebody looks for it. Likewise a client's poll:
# nine lines in ten would be polls, and what becomes of the job has lines of its own.
_PROBES = frozenset({"/health", "/ready"})
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_CLIENT_GONE = 499  # nginx's number for a request nobody waits for any more
_MAX_PATH_LENGTH = 200

log = structlog.stdlib.get_logger(__name__)


def note(scope: Scope, **fields: Any) -> None:
    """Add fields to the line of this request."""
    scope["state"].setdefault("access", {}).update(fields)


class AccessLog:
    """ASGI middleware: `request.finished` with method, path, status, milliseconds, client and task.

    Beyond a number of refusals of one kind, `request.lines_left_out` gives their number instead.

    Starlette answers an unexpected error with a 500 and then raises it again for the server to log. Here it is logged
    with the request's ids and ends; it goes on only if the client has no complete answer, so that the server closes the
    connection.
    """

    def __init__(self, app: ASGIApp, meter: Meter = SILENT) -> None:
        self._app = app
        self._meter = meter
        # Of refusals, by client and status: whoever has no key can cause as many as he likes.
        self._quota = LogQuota[tuple[str | None, int]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        started = time.perf_counter()
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            log.exception("request.failed")
            if not answer.is_complete:
                raise
        finally:
            duration_s = time.perf_counter() - started
            if answer.is_complete:
                self._meter.answered(answer.status, duration_s)
            self._write_line(scope, answer.status, duration_s)

    def _write_line(self, scope: Scope, status: int, duration_s: float) -> None:
        fields = scope["state"].get("access", {})
        client_id = fields.get("client_id")
        for (client, refusal), number in self._quota.left_out().items():
            log.info("request.lines_left_out", client_id=client, status=refusal, count=number)
        if status >= HTTPStatus.BAD_REQUEST and not self._quota.admit((client_id, status)):
            return
        write = log.debug if _is_routine(scope, status) else log.info
        write(
            "request.finished",
            method=scope["method"],
            path=scope["path"][:_MAX_PATH_LENGTH],
            status=status,
            duration_ms=round(duration_s * 1000, 1),
            **fields,
        )


def _is_routine(scope: Scope, status: int) -> bool:
    return scope["path"] in _PROBES or (scope["method"] in _READS and status < HTTPStatus.BAD_REQUEST)


class _Answer:
    """What went out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = _CLIENT_GONE
        self.is_complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True
