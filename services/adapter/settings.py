"""What an operator can set, by environment variable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AnyHttpUrl, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lib.asyncaws.metrics import NAMESPACE_PATTERN, Destination
from lib.daemon.logs import LogFormat, LogLevel

# The shutdown Lambda's rule B stops an instance whose work takes longer.
_RULE_B_S = 1800

Name = Annotated[str, Field(min_length=1)]


class AdapterSettings(BaseSettings):
    """Attributes are the variables in lower case; times in seconds. An empty variable counts as not set.

    Attributes:
        gpu_instance_id: the instance this runs on; empty: asked of the instance metadata service.
        comfyui_url: ComfyUI itself, asked how a job ended when the Unified API does not tell. Empty: not asked.
        comfyui_wedged_s: for how long ComfyUI must have been idle, with the job ended there, before the Unified API
            counts as hung. Uploading the result must fit in.
        concurrency: jobs in work at once. The Unified API serves one at a time, so 1.
        upstream_restart_file: touched when the Unified API hangs, or different jobs in a row have failed there in the
            same way; whoever watches the file restarts it. Empty: nobody is asked.
        drain_s: how long a stop waits for work before it is given back. systemd's stop timeout must exceed
            `receive_wait_s` + `drain_s`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    aws_region: Name
    aws_endpoint_url: str | None = Field(default=None, pattern="^https?://.")
    sqs_queue_url: AnyHttpUrl
    dynamodb_table: Name
    gpu_instance_id: str = ""
    comfyui_api_url: AnyHttpUrl = AnyHttpUrl("http://localhost:8000")
    comfyui_url: AnyHttpUrl | None = None
    comfyui_wedged_s: float = Field(default=90, gt=0, le=_RULE_B_S)
    concurrency: int = Field(default=1, ge=1, le=64)
    visibility_timeout_s: int = Field(default=300, ge=2, le=43_200)
    heartbeat_s: float = Field(default=100, gt=0)
    receive_wait_s: int = Field(default=20, ge=0, le=20)
    job_deadline_s: float = Field(default=1500, gt=0)
    max_attempts: int = Field(default=3, ge=1, le=10)
    poll_interval_s: float = Field(default=1, gt=0, le=60)
    health_interval_s: float = Field(default=5, gt=0, le=60)
    upstream_restart_file: Path | None = None
    worker_beat_s: float = Field(default=30, gt=0, le=300)
    drain_s: float = Field(default=60, ge=0, le=_RULE_B_S)
    log_format: LogFormat = LogFormat.CONSOLE
    log_level: LogLevel = LogLevel.INFO
    metrics: Destination = Destination.OFF
    metrics_namespace: str = Field(default="gpu-on-demand", pattern=NAMESPACE_PATTERN)

    @field_validator("comfyui_api_url", "comfyui_url")
    @classmethod
    def _has_no_path(cls, value: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if value is not None and value.path not in (None, "/"):
            raise ValueError("only scheme, host and port: each request's own path is put behind them")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.heartbeat_s >= self.visibility_timeout_s / 2:
            raise ValueError("HEARTBEAT_S must be less than half of VISIBILITY_TIMEOUT_S, so that one may be missed")
        if self.job_deadline_s >= _RULE_B_S:
            raise ValueError(f"JOB_DEADLINE_S must be below {_RULE_B_S}, when the instance is stopped over a stuck job")
        return self
