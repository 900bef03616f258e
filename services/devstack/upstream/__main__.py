"""`python -m services.devstack.upstream`: a stand-in for the ComfyUI Unified API, with the real one's manners.

It answers nothing while a job runs, forgets every job when it is restarted, ignores SIGTERM until the running job has
ended, and really fetches, edits and uploads pictures. Environment (S3 credentials the SDK's way):

| variable | default | meaning |
| --- | --- | --- |
| PORT | 8000 | port on 127.0.0.1; 0 takes a free one, named in the `upstream.listening` line of the log |
| RESULT_BUCKET | (required) | bucket of `comfyui-results/<kind>/<job_id>/output.png` |
| AWS_ENDPOINT_URL, AWS_REGION | AWS, us-east-1 | where S3 is |
| RESULT_URI_STYLE | s3 | `s3`, `cdn` or `schemeless` |
| RESULT_CDN_BASE | https://cdn.example.com | what a `cdn` or `schemeless` result begins with |
| STEP_S | 0.3 | seconds per step |
| FETCH_TIMEOUT_S | 30 | longest silence of an image server |
| BLOCKING | true | false: answers meanwhile (`processing`), one worker, first in, first out |
| RUN_LOG | (none) | file that gets one JSON line per `started`, `completed`, `failed` run |
| COMFYUI_STATE | (none) | file by which ComfyUI goes on when this process is killed: the next job waits behind it |
| COMFYUI_PORT | (none) | port on 127.0.0.1 of ComfyUI's own `/queue` and `/history`, which never block |
| LOG_FORMAT, LOG_LEVEL | console, INFO | `console`, `json`, `journal` (here the same as json); always to stderr |

Vices, all off by default; `*_ON` is a text, and a job whose prompt contains it meets the fault:

| variable | fault |
| --- | --- |
| HANG_ON, HANG_PROBABILITY, VICE_SEED | the job's end is never noticed: nothing is answered again, SIGTERM included |
| DIE_ON | the process ends (status 1) in mid-job |
| FORGET_ON | 404 once the job is finished |
| FAIL_ON | the job fails in its middle: `No output images generated` |
| LOSE_CUDA_ON | from this job on each one fails, though the health is fine, until the process ends |
| REFUSE_ON | 503 at the POST |
| CONFUSE_ON | a GET shows another job |
| COMFYUI_DIES_ON, COMFYUI_RESTART_S (10) | `[Errno 104]`; `[Errno 111]` and an unhealthy `comfyui_status` until back |
| UNHEALTHY_FOR_S | ComfyUI is not up for the first seconds |

A wrong value ends the start with one line on stderr and status 78.
"""

import logging
import os
import socket
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal

import boto3
import structlog
import uvicorn
from botocore.config import Config
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.devstack.upstream.app import build_app
from services.devstack.upstream.comfyui import ComfyUi
from services.devstack.upstream.jobs import BlockingLane, PoliteLane, RunLog, Runner
from services.devstack.upstream.prompts import serve
from services.devstack.upstream.storage import ResultUriStyle, Storage
from services.devstack.upstream.vices import Vices

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = structlog.stdlib.get_logger(__name__)

_BACKLOG = 2048


class UpstreamSettings(BaseSettings):
    """The environment; see the module's text."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    port: int = Field(default=8000, ge=0, le=65535)
    result_bucket: str
    aws_endpoint_url: str | None = None
    aws_region: str = "us-east-1"
    result_uri_style: ResultUriStyle = ResultUriStyle.S3
    result_cdn_base: str = Field(default="https://cdn.example.com", pattern="^https?://.")
    step_s: float = Field(default=0.3, ge=0)
    fetch_timeout_s: float = Field(default=30.0, gt=0)
    blocking: bool = True
    run_log: Path | None = None
    comfyui_state: Path | None = None
    comfyui_port: int | None = Field(default=None, ge=1, le=65535)
    log_format: Literal["console", "json", "journal"] = "console"
    log_level: str = Field(default="INFO", pattern="^(?i:debug|info|warning|error)$")

    hang_on: str = ""
    hang_probability: float = Field(default=0.0, ge=0, le=1)
    vice_seed: int = 0
    die_on: str = ""
    forget_on: str = ""
    fail_on: str = ""
    lose_cuda_on: str = ""
    refuse_on: str = ""
    confuse_on: str = ""
    comfyui_dies_on: str = ""
    comfyui_restart_s: float = Field(default=10.0, ge=0)
    unhealthy_for_s: float = Field(default=0.0, ge=0)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = UpstreamSettings()
    except ValidationError as exc:
        wrong = "; ".join(f"{str(error['loc'][0]).upper()}: {error['msg']}" for error in exc.errors())
        print(f"upstream: wrong configuration: {wrong}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    _configure_logging(settings)
    comfyui = ComfyUi(
        step_s=settings.step_s,
        down_for_s=settings.unhealthy_for_s,
        restart_s=settings.comfyui_restart_s,
        state_path=settings.comfyui_state,
    )
    if settings.comfyui_port is not None:
        _serve_comfyui(settings.comfyui_port, comfyui)
    vices = _pick_vices(settings)
    runner = Runner(
        comfyui=comfyui,
        storage=_build_storage(settings),
        vices=vices,
        run_log=RunLog(settings.run_log),
    )
    listener = _listen(settings.port)
    lane = BlockingLane(runner) if settings.blocking else PoliteLane(runner)
    app = build_app(runner=runner, lane=lane, comfyui=comfyui, vices=vices)
    log.info("upstream.listening", port=listener.getsockname()[1], blocking=settings.blocking)
    # uvicorn's own signal handling is the wanted one: a flag, looked at when the loop is free again.
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")).run(sockets=[listener])


def _serve_comfyui(port: int, comfyui: ComfyUi) -> None:
    try:
        serve(port, comfyui.prompts, is_up=comfyui.is_up)
    except OSError as exc:
        print(f"upstream: wrong configuration: COMFYUI_PORT: {exc.strerror}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)


def _listen(port: int) -> socket.socket:
    # The protocol named: asyncio sets TCP_NODELAY only then, and without it an answer on a kept connection takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as exc:
        print(f"upstream: wrong configuration: PORT: {exc.strerror}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    listener.listen(_BACKLOG)
    return listener


def _build_storage(settings: UpstreamSettings) -> Storage:
    # Emulators on loopback have no DNS for one host name per bucket.
    style: Literal["path", "auto"] = "path" if settings.aws_endpoint_url else "auto"
    s3: S3Client = boto3.client(
        "s3",
        endpoint_url=settings.aws_endpoint_url,
        region_name=settings.aws_region,
        config=Config(s3={"addressing_style": style}, retries={"mode": "standard", "total_max_attempts": 2}),
    )
    return Storage(
        s3=s3,
        bucket=settings.result_bucket,
        style=settings.result_uri_style,
        cdn_base=settings.result_cdn_base,
        fetch_timeout_s=settings.fetch_timeout_s,
    )


def _pick_vices(settings: UpstreamSettings) -> Vices:
    return Vices(
        hang_on=settings.hang_on,
        hang_probability=settings.hang_probability,
        fail_on=settings.fail_on,
        die_on=settings.die_on,
        forget_on=settings.forget_on,
        lose_cuda_on=settings.lose_cuda_on,
        refuse_on=settings.refuse_on,
        confuse_on=settings.confuse_on,
        comfyui_dies_on=settings.comfyui_dies_on,
        dice=Random(settings.vice_seed),
    )


def _configure_logging(settings: UpstreamSettings) -> None:
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if settings.log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    main()
