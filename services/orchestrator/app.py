"""The HTTP side of the orchestrator, put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from lib.gputask.request_rules import DEFAULT_RULES, RequestRules
from services.orchestrator.access_log import AccessLog
from services.orchestrator.admission import Admission, AdmissionLimits
from services.orchestrator.authentication import Authenticator
from services.orchestrator.endpoints import (
    JOB_STAGE,
    JOB_WARNING,
    JobEndpoints,
    ReadsTasks,
    ServiceEndpoints,
    StageOf,
    Submits,
)
from services.orchestrator.meter import SILENT, Meter
from services.orchestrator.problems import EXCEPTION_HANDLERS
from services.orchestrator.readiness import Readiness, ReadinessCheck
from services.orchestrator.request_id import HEADER, RequestId
from services.orchestrator.stopping import StopAnswer

_ANY_PORT = ":*"


def build_app(
    *,
    submission: Submits,
    tasks: ReadsTasks,
    stage_of: StageOf,
    readiness_check: ReadinessCheck,
    gpu_problem: Callable[[], str | None] = lambda: None,
    authenticator: Authenticator,
    rules: RequestRules = DEFAULT_RULES,
    cors_origins: Sequence[str] = (),
    admission: Admission | None = None,
    meter: Meter = SILENT,
) -> ASGIApp:
    """The ASGI application. Starts nothing and owns nothing that would have to be closed.

    Args:
        readiness_check: looks at what the service needs; asked at most every few seconds.
        gpu_problem: what keeps the GPU from waking until an operator helps.
        rules: what the operator decides of requests.
        cors_origins: origins whose pages may call from a browser; `*` for all, none for no CORS headers. One that
            ends with `:*` is allowed at any port.
        admission: who may submit now; others are turned away with 503.
    """
    jobs = JobEndpoints(
        submission=submission,
        tasks=tasks,
        stage_of=stage_of,
        authenticator=authenticator,
        admission=admission or Admission(AdmissionLimits()),
        rules=rules,
    )
    service = ServiceEndpoints(
        version=version("gpu-on-demand"), readiness=Readiness(readiness_check, gpu_problem=gpu_problem)
    )
    routes = [*jobs.routes(), *service.routes()]
    starlette = Starlette(routes=[*routes, *map(_with_slash, routes)], exception_handlers=EXCEPTION_HANDLERS)
    # A trailing slash is answered, not redirected: a redirected POST may lose its body or its key on the way.
    starlette.router.redirect_slashes = False
    # Around Starlette, not inside it: its answer to an unexpected error bypasses the middleware inside.
    return RequestId(AccessLog(_allow_origins(StopAnswer(starlette), cors_origins), meter))


def _with_slash(route: Route) -> Route:
    return Route(f"{route.path}/", route.endpoint, methods=route.methods, name=f"{route.name}, with a slash")


def _with_any_port(origin: str) -> str:
    return re.escape(origin.removesuffix(_ANY_PORT)) + "(:[0-9]+)?"


def _allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=[origin for origin in origins if not origin.endswith(_ANY_PORT)],
        allow_origin_regex="|".join(_with_any_port(origin) for origin in origins if origin.endswith(_ANY_PORT)) or None,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", HEADER),
        expose_headers=("Location", "Retry-After", HEADER, JOB_STAGE, JOB_WARNING),
    )
