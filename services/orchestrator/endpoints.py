"""The routes: each parses, calls one function, answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from structlog.contextvars import bound_contextvars

from lib.gputask.kinds import KINDS, Kind
from lib.gputask.record import Status, TaskRecord
from lib.gputask.request_rules import RequestRules
from services.orchestrator import expiry
from services.orchestrator.access_log import note
from services.orchestrator.admission import Admission
from services.orchestrator.authentication import ANONYMOUS, Authenticator
from services.orchestrator.body import check_body, read_body
from services.orchestrator.errors import InvalidRequest, JobNotFound
from services.orchestrator.idempotency import read_idempotency_key
from services.orchestrator.readiness import Readiness
from services.orchestrator.request_id import request_id_of

JOB_STAGE = "Job-Stage"
JOB_WARNING = "Job-Warning"
POLL_AFTER_S = 2  # what Retry-After tells a client that waits for its job

_JOB_PATH = "/api/v1/jobs/{job_id}"
# The table also holds records of workers and instances, under ids of another form.
_JOB_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WITHOUT_SCHEME = re.compile(r"(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?::[0-9]+)?/[^\s]+")
_NOT_IN_A_HEADER = re.compile(r"[^\x20-\x7e]")

# Where a task that is not finished stands, in a few words for whoever waits.
StageOf = Callable[[TaskRecord], str]


class Submits(Protocol):
    """Accepts tasks."""

    async def submit(
        self, *, kind: Kind, body: bytes, client_id: str, idempotency_key: str | None, request_id: str
    ) -> TaskRecord:
        """Raises IdempotencyConflict, Unavailable."""
        ...

    async def find(self, *, kind: Kind, body: bytes, client_id: str, idempotency_key: str) -> TaskRecord | None:
        """Raises IdempotencyConflict, TransientAwsError, PermanentAwsError."""
        ...


class ReadsTasks(Protocol):
    """Knows the tasks."""

    async def get(self, task_id: str) -> TaskRecord | None:
        """Raises TransientAwsError, PermanentAwsError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEndpoints:
    """What the Unified API offers, asynchronously: jobs of every kind."""

    submission: Submits
    tasks: ReadsTasks
    stage_of: StageOf
    authenticator: Authenticator
    admission: Admission
    rules: RequestRules
    clock: Callable[[], float] = time.time

    def routes(self) -> list[Route]:
        """One POST and one GET per kind, and the GET for all kinds."""
        routes = [Route(_JOB_PATH, self.show, methods=["GET"])]
        for kind in KINDS:
            post, get = partial(self.submit, kind=kind), partial(self.show, kind=kind)
            routes.append(Route(kind.api_path, post, methods=["POST"], name=f"submit {kind.slug}"))
            routes.append(Route(f"{kind.api_path}/{{job_id}}", get, methods=["GET"], name=f"show {kind.slug}"))
        return routes

    async def submit(self, request: Request, kind: Kind) -> Response:
        """202 and the new job, or the one that this Idempotency-Key made before."""
        client_id = self._identify(request)
        idempotency_key = read_idempotency_key(request.headers)
        async with self.admission.place(client_id) as place:
            async with place.reading():
                body = await read_body(request)
            return await self._submit(request, kind, body, client_id, idempotency_key)

    async def _submit(
        self, request: Request, kind: Kind, body: bytes, client_id: str, idempotency_key: str | None
    ) -> Response:
        addresses = check_body(body, kind, self.rules.for_client(client_id)).image_urls()
        if gone := expiry.expired(addresses, self.clock()):
            return await self._repeat(kind, body, client_id, idempotency_key, gone)
        with bound_contextvars(client_id=client_id):
            record = await self.submission.submit(
                kind=kind,
                body=body,
                client_id=client_id,
                idempotency_key=idempotency_key,
                request_id=request_id_of(request.scope),
            )
        note(request.scope, job_id=record.task_id)
        return self._accepted(record, addresses)

    async def _repeat(
        self, kind: Kind, body: bytes, client_id: str, idempotency_key: str | None, gone: Mapping[str, str]
    ) -> Response:
        """What was accepted while its addresses were good is found by its key; nothing new is made of dead ones."""
        if idempotency_key is not None:
            record = await self.submission.find(
                kind=kind, body=body, client_id=client_id, idempotency_key=idempotency_key
            )
            if record is not None:
                return self._accepted(record, {})
        raise InvalidRequest([{"type": "image_url", "loc": ["body", name], "msg": said} for name, said in gone.items()])

    def _accepted(self, record: TaskRecord, addresses: Mapping[str, str]) -> Response:
        headers = {"Location": _JOB_PATH.format(job_id=record.task_id)}
        if warning := expiry.warning(addresses, self.clock()):
            headers[JOB_WARNING] = warning
        return self._job(record, 202, headers)

    async def show(self, request: Request, kind: Kind | None = None) -> Response:
        """200 and the client's job."""
        client_id = self._identify(request)
        # A UUID is the same in capitals (RFC 9562, section 4); the table has it in small letters.
        job_id = request.path_params["job_id"].lower()
        if not _JOB_ID.fullmatch(job_id):
            raise JobNotFound
        note(request.scope, job_id=job_id)
        record = await self.tasks.get(job_id)
        # Another client's job is as good as none: its existence is nobody else's business.
        # One without an owner, as another program may have written, is the operator's: of a service without keys.
        if record is None or (record.client_id or ANONYMOUS) != client_id:
            raise JobNotFound
        if kind is not None and record.job_type != kind.api_path:
            raise JobNotFound
        return self._job(record, 200, {})

    def _identify(self, request: Request) -> str:
        client_id = self.authenticator.identify(request.headers)
        note(request.scope, client_id=client_id)
        return client_id

    def _job(self, record: TaskRecord, status_code: int, headers: dict[str, str]) -> Response:
        headers = headers | {"Cache-Control": "no-store"}
        if not record.status.is_terminal:
            stage = _NOT_IN_A_HEADER.sub("?", self.stage_of(record))
            headers |= {"Retry-After": str(POLL_AFTER_S), JOB_STAGE: stage}
        return JSONResponse(
            {
                "job_id": record.task_id,
                "status": record.status.value,
                "result_s3_uri": record.result_s3_uri,
                "result_url": _browser_address(record.result_s3_uri),
                "error": _error_of(record),
            },
            status_code,
            headers,
        )


def _browser_address(result: str | None) -> str | None:
    """Where a browser finds the result; None where it cannot, as in a bucket. A CDN may be named without a scheme."""
    if result is None or result.startswith(("https://", "http://")):
        return result
    return f"https://{result}" if _WITHOUT_SCHEME.fullmatch(result) else None


def _error_of(record: TaskRecord) -> str | None:
    """Why it failed. A record that was failed by hand, or by another program, may say so in no attribute of ours."""
    if record.status is not Status.FAILED or record.error_message:
        return record.error_message
    return f"The job failed ({record.error_code or 'no error code'}); no message was recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEndpoints:
    """What this service says of itself, to anybody."""

    version: str
    readiness: Readiness

    def routes(self) -> list[Route]:
        return [
            Route("/", self.describe, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            # For balancers that pass on /api/v1 only.
            Route("/api/v1/health", self.health, methods=["GET"], name="health below the API"),
            Route("/ready", self.ready, methods=["GET"]),
        ]

    async def describe(self, _request: Request) -> Response:
        """What can be asked here."""
        endpoints = {kind.slug: f"POST {kind.api_path}" for kind in KINDS}
        endpoints |= {"job": f"GET {_JOB_PATH}", "health": "GET /health", "ready": "GET /ready"}
        return JSONResponse({"service": "GPU on demand: orchestrator", "version": self.version, "endpoints": endpoints})

    async def health(self, _request: Request) -> Response:
        """Liveness only. Asks nobody, so that a fault at AWS does not take all replicas away."""
        return JSONResponse({"status": "healthy", "message": "Orchestrator is running"})

    async def ready(self, _request: Request) -> Response:
        """Whether the table and the queue answer, and nothing that only an operator can mend keeps the GPU off."""
        return JSONResponse({"status": "ready", "checks": dict(await self.readiness.ensure())})
