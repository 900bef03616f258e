"""The HTTP face of the stand-in: the routes, answers and refusals of the Unified API."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import structlog
from fastapi import BackgroundTasks, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from services.devstack.upstream.comfyui import ComfyUi
from services.devstack.upstream.jobs import Job, JobStatus, Lane, Runner
from services.devstack.upstream.requests import CameraAngleRequest, JobRequest, QwenImageEditRequest
from services.devstack.upstream.vices import RefusedError, Vices

log = structlog.stdlib.get_logger(__name__)

RequestId = Annotated[str | None, Header(alias="X-Request-ID")]


class JobAnswer(BaseModel):
    """A job as clients see it."""

    job_id: str
    status: JobStatus
    result_s3_uri: str | None
    error: str | None


def build_app(*, runner: Runner, lane: Lane, comfyui: ComfyUi, vices: Vices) -> FastAPI:
    """Return the application. `lane` decides whether anything is answered while a job runs; it is closed at the end."""

    @asynccontextmanager
    async def closing_lane(_app: FastAPI) -> AsyncIterator[None]:
        yield
        log.info("upstream.closing")
        await asyncio.to_thread(lane.close)

    app = FastAPI(title="ComfyUI Unified API (stand-in)", lifespan=closing_lane)

    async def accept(
        kind: str, body: JobRequest, request: Request, background: BackgroundTasks, request_id: str | None
    ) -> JobAnswer:
        vices.refuse(body.prompt)
        sha256 = hashlib.sha256(await request.body()).hexdigest()
        job = Job(kind=kind, request=body, body_sha256=sha256, request_id=request_id)
        runner.jobs[job.job_id] = job
        log.info("job.accepted", job_id=job.job_id, kind=kind, request_id=request_id)
        # A background task starts once the answer is written, on this very loop: where the real API's blocking comes
        # from, so that the order in which waiting requests are served is the real one too.
        background.add_task(lane.take, job)
        return _answer(job)

    @app.exception_handler(RefusedError)
    async def refuse(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "Service Unavailable"}, status_code=503)

    @app.post("/api/v1/camera-angle/jobs")
    async def create_camera_angle_job(
        body: CameraAngleRequest, request: Request, background: BackgroundTasks, request_id: RequestId = None
    ) -> JobAnswer:
        return await accept("camera-angle", body, request, background, request_id)

    @app.post("/api/v1/qwen-image-edit/jobs")
    async def create_qwen_image_edit_job(
        body: QwenImageEditRequest, request: Request, background: BackgroundTasks, request_id: RequestId = None
    ) -> JobAnswer:
        return await accept("qwen-image-edit", body, request, background, request_id)

    @app.get("/api/v1/jobs/{job_id}")
    @app.get("/api/v1/camera-angle/jobs/{job_id}")
    @app.get("/api/v1/qwen-image-edit/jobs/{job_id}")
    async def get_job(job_id: str) -> JobAnswer:
        job = runner.jobs.get(job_id)
        if job is None:
            raise HTTPException(404, "Job not found")
        return _answer(job, shown_as=vices.confused_id(job.request.prompt))

    @app.get("/health")
    async def get_health() -> dict[str, str]:
        return {"status": "healthy", "comfyui_status": "healthy" if comfyui.is_up() else "unhealthy"}

    @app.get("/")
    async def get_service() -> dict[str, str | list[str]]:
        return {
            "service": "ComfyUI Unified API",
            "endpoints": ["/api/v1/camera-angle/jobs", "/api/v1/qwen-image-edit/jobs", "/api/v1/jobs/{job_id}"],
        }

    return app


def _answer(job: Job, *, shown_as: str | None = None) -> JobAnswer:
    return JobAnswer(job_id=shown_as or job.job_id, status=job.status, result_s3_uri=job.result_s3_uri, error=job.error)
