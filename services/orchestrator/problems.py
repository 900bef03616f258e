"""What goes wrong, as the client sees it: one table from error to answer, one shape for all answers.

The shape is RFC 9457's, plus `request_id`. `detail` stays where clients of the Unified API look for it; in a 422 it is
FastAPI's list of errors, unless the client asks for `application/problem+json`, whose `detail` has to be a sentence:
then the list is in `errors`, and `status` is the number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from lib.asyncaws.errors import AwsError, PermanentAwsError, TransientAwsError
from lib.gputask.record import Status
from services.orchestrator import errors
from services.orchestrator.request_id import HEADER, request_id_of

MEDIA_TYPE = "application/problem+json"

# In `application/json` instead of the number: clients of the Unified API read a job's status there, and only some words
# end their loops.
_ENDED = Status.FAILED.value

_TYPE_PREFIX = "urn:gpu-on-demand:problem:"
_RETRY_AFTER_TRANSIENT_S = 2
_RETRY_AFTER_PERMANENT_S = 30  # somebody has to repair a permission or a name first
_RETRY_AFTER_NOT_READY_S = 5
_RETRY_AFTER_CONNECTION_S = 1

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One kind of failure.

    Attributes:
        name: of the problem type, where the status does not say it all.
        errors: FastAPI's list, where the request's content is at fault.
        members: further members of the answer.
        is_for_job: answered in `application/json`, as clients of the Unified API expect it of a job.
    """

    status: int
    detail: str
    name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[errors.FieldError] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    is_for_job: bool = False


def _http_exception(error: HTTPException) -> Problem:
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    return Problem(status=error.status_code, detail=error.detail, headers=headers)


def _unauthorized(error: errors.Unauthorized) -> Problem:
    if not error.has_key:
        detail = "An API key is needed, as X-API-Key or as Authorization: Bearer"
        return Problem(status=401, detail=detail, headers={"WWW-Authenticate": "Bearer"})
    # RFC 6750, section 3.1: the error code is for requests that bring credentials.
    challenge = 'Bearer error="invalid_token"'
    return Problem(status=401, detail="The API key is not known", headers={"WWW-Authenticate": challenge})


def _invalid_request(error: errors.InvalidRequest) -> Problem:
    where = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors)
    return Problem(status=422, name="invalid-request", detail="; ".join(where), errors=error.errors)


def _idempotency_conflict(_error: errors.IdempotencyConflict) -> Problem:
    name = "idempotency-key-reused"
    detail = "This Idempotency-Key was used before, for another request"
    entry = {"type": name.replace("-", "_"), "loc": ["header", "Idempotency-Key"], "msg": detail}
    return Problem(status=422, name=name, detail=detail, errors=[entry])


def _unavailable(detail: str, retry_after_s: float) -> Problem:
    return Problem(status=503, detail=detail, headers={"Retry-After": f"{retry_after_s:.0f}"})


def _too_many_unfinished(error: errors.TooManyUnfinished) -> Problem:
    detail = f"You have {error.most} or more jobs that have not ended; when some have, send this one again"
    headers = {"Retry-After": str(error.retry_after_s)}
    return Problem(status=429, name="too-many-unfinished-jobs", detail=detail, headers=headers)


def _not_ready(error: errors.NotReady) -> Problem:
    headers = {"Retry-After": str(_RETRY_AFTER_NOT_READY_S)}
    detail = f"Not ready: {error.problem}" if error.problem else "Not ready"
    return Problem(status=503, name="not-ready", detail=detail, headers=headers, members={"checks": error.checks})


_UNAVAILABLE = "The service is temporarily unavailable"

_PROBLEMS: Mapping[type[Exception], Callable[[Any], Problem]] = {
    HTTPException: _http_exception,
    ClientDisconnect: lambda _: Problem(status=400, detail="The request ended before its body was complete"),
    errors.Unauthorized: _unauthorized,
    errors.JobNotFound: lambda _: Problem(status=404, detail="Job not found", is_for_job=True),
    errors.InvalidIdempotencyKey: lambda error: Problem(status=400, name="invalid-idempotency-key", detail=str(error)),
    errors.IdempotencyConflict: _idempotency_conflict,
    errors.UnsupportedBodyType: lambda error: Problem(status=415, detail=str(error)),
    errors.BodyTooLarge: lambda error: Problem(
        status=413,
        detail=f"The body is larger than {error.limit_bytes} bytes; a character beyond ASCII counts as its JSON escape",
    ),
    errors.InvalidRequest: _invalid_request,
    errors.MalformedRequest: lambda _: Problem(status=400, detail="The request is not well-formed HTTP/1.1"),
    errors.TunnelRefused: lambda _: Problem(status=405, detail="Method Not Allowed", headers={"Allow": "GET, POST"}),
    errors.RequestTooSlow: lambda _: Problem(status=408, detail="The request took too long to arrive"),
    errors.HeadTooLarge: lambda error: Problem(
        status=431, detail=f"The headers or trailers are larger than {error.limit_bytes} bytes"
    ),
    errors.TooManyConnections: lambda _: _unavailable("Too many connections", _RETRY_AFTER_CONNECTION_S),
    errors.Stopping: lambda _: _unavailable("The service is being restarted", _RETRY_AFTER_NOT_READY_S),
    errors.Unavailable: lambda error: _unavailable(error.reason, error.retry_after_s),
    errors.TooManyUnfinished: _too_many_unfinished,
    errors.NotReady: _not_ready,
    TransientAwsError: lambda _: _unavailable(_UNAVAILABLE, _RETRY_AFTER_TRANSIENT_S),
    PermanentAwsError: lambda _: _unavailable(_UNAVAILABLE, _RETRY_AFTER_PERMANENT_S),
    Exception: lambda _: Problem(status=500, detail="Internal Server Error"),
}


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, AwsError):
        log.error("aws.failed", operation=error.operation, code=error.code, exc_info=error)
    return render(request, problem_of(error))


# For Starlette, which looks an error up by its classes in the order of their inheritance, as `problem_of` does.
EXCEPTION_HANDLERS: Mapping[Any, Callable[[Request, Exception], Any]] = dict.fromkeys(_PROBLEMS, _answer)


def problem_of(error: Exception) -> Problem:
    """The entry of the table for the error's nearest class."""
    for class_ in type(error).__mro__:
        if class_ in _PROBLEMS:
            return _PROBLEMS[class_](error)
    raise AssertionError("every Exception has an entry")  # pragma: no cover


def render(request: Request, problem: Problem) -> Response:
    """The answer for one problem."""
    is_plain = bool(problem.errors or problem.is_for_job) and not _accepts_problem_json(request)
    members = _members(problem, request_id_of(request.scope))
    if is_plain:
        members["status"] = _ENDED
    if problem.errors:
        members["detail" if is_plain else "errors"] = list(problem.errors)
    media_type = "application/json" if is_plain else MEDIA_TYPE
    return JSONResponse(members, problem.status, problem.headers, media_type)


def as_bytes(problem: Problem, *, request_id: str) -> bytes:
    """The answer to what never became a request, with its head; no other answer follows it."""
    body = json.dumps(_members(problem, request_id)).encode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        HEADER: request_id,
        **problem.headers,
    }
    head = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(head).encode("ascii") + body


def _members(problem: Problem, request_id: str) -> dict[str, Any]:
    return {
        "type": _TYPE_PREFIX + problem.name if problem.name else "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.members,
    }


def _accepts_problem_json(request: Request) -> bool:
    """Is it asked for by name? `*/*` is what every client sends, so it asks for nothing."""
    for accept in request.headers.getlist("accept"):
        for entry in accept.split(","):
            media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
            if media_type == MEDIA_TYPE and not any(_is_zero_quality(parameter) for parameter in parameters):
                return True
    return False


def _is_zero_quality(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in {"", "0.", "."}
