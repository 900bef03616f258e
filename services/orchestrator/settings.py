"""What an operator can set, by environment variable."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Self

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lib.asyncaws.metrics import NAMESPACE_PATTERN, Destination
from lib.daemon.logs import LogFormat, LogLevel
from lib.gputask.image_buckets import ImageBuckets, parse_image_buckets
from lib.gputask.image_url import WEB_PORTS, ImageUrlRules
from lib.gputask.request_rules import RequestRules
from services.orchestrator.authentication import ApiKey, parse_api_keys

# RFC 6454, section 6.2: no path, not even a slash at the end.
_ORIGIN = re.compile(r"https?://[^/\s?#@]+")
_PORT = re.compile(r"[1-9][0-9]{0,4}")

Name = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class OrchestratorSettings(BaseSettings):
    """Attributes are the variables in lower case; times in seconds. An empty variable counts as not set.

    Attributes:
        api_keys: `name:sha256hex`, comma separated; may be empty only where nobody but this machine can connect.
        allow_private_image_urls: also at any port.
        image_buckets: `bucket` or `bucket/prefix/`, comma separated, that `s3://` addresses may name; `*` for whatever
            the GPU's role can read, `none` for none. May be empty, as `*`, only where nobody but this machine connects.
        image_url_ports: comma separated, beside 80 and 443.
        max_steps, max_cfg, max_prompt: limits of a request, the last in characters.
        cors_origins: comma separated origins whose pages may call from a browser; `*` for all, `http://localhost:*`
            for one host at any port.
        max_connections_per_address: of those, from one address; none where all have that of a balancer or proxy.
        max_unfinished_per_client: jobs without an end that a client may have; about, as each replica counts for itself.
        resend_after_s: a message not taken for so long is sent once more, then after twice as long, and so on.
        task_max_age_s: a task not finished by then is failed; less than the queue's retention.
        task_retention_s: how long a record is kept.
        drain_s: how long a stop waits for open requests.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    aws_region: Name
    aws_endpoint_url: str | None = Field(default=None, pattern="^https?://.")
    sqs_queue_url: AnyHttpUrl
    sqs_dlq_url: AnyHttpUrl
    dynamodb_table: Name
    gpu_instance_id: str = Field(pattern="^i-[0-9a-f]{8,17}$")
    host: Name = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65_535)
    api_keys: SecretStr = SecretStr("")
    allow_private_image_urls: bool = False
    image_buckets: str = ""
    image_url_ports: str = ""
    # ComfyUI's own limits; a request that leaves `steps` out means up to 8.
    max_steps: int = Field(default=100, ge=8, le=10_000)
    max_cfg: float = Field(default=30, ge=1, le=100)
    max_prompt: int = Field(default=10_000, ge=1, le=250_000)
    cors_origins: str = ""
    max_submissions: int = Field(default=128, ge=1)
    max_connections: int = Field(default=4096, ge=1)
    max_connections_per_address: int | None = Field(default=None, ge=1)
    max_unfinished_per_client: int = Field(default=1000, ge=1)
    waker_interval_s: Seconds = Field(default=30, gt=0, le=300)
    janitor_interval_s: Seconds = Field(default=60, gt=0, le=3600)
    resend_after_s: Seconds = Field(default=600, gt=0)
    task_max_age_s: Seconds = Field(default=86_400, gt=0)
    task_retention_s: Seconds = Field(default=604_800, gt=0)
    drain_s: Seconds = Field(default=25, ge=0)
    log_format: LogFormat = LogFormat.CONSOLE
    log_level: LogLevel = LogLevel.INFO
    metrics: Destination = Destination.OFF
    metrics_namespace: str = Field(default="gpu-on-demand", pattern=NAMESPACE_PATTERN)

    @field_validator("api_keys")
    @classmethod
    def _keys_are_readable(cls, value: SecretStr) -> SecretStr:
        parse_api_keys(value.get_secret_value())
        return value

    @field_validator("image_buckets")
    @classmethod
    def _buckets_are_readable(cls, value: str) -> str:
        parse_image_buckets(value)
        return value

    @field_validator("image_url_ports")
    @classmethod
    def _ports_are_numbers(cls, value: str) -> str:
        _ports(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_have_a_scheme(cls, value: str) -> str:
        for origin in filter(None, map(str.strip, value.split(","))):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin} is no origin: write scheme, host and port as the browser does, say http://localhost:5173"
                )
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not self.keys and not _is_loopback(self.host):
            raise ValueError(
                f"API_KEYS is not set, but HOST {self.host} is reachable from other machines; "
                "set API_KEYS=name:sha256hex or bind to 127.0.0.1"
            )
        if not self.image_buckets.strip() and not _is_loopback(self.host):
            raise ValueError(
                f"IMAGE_BUCKETS is not set, but HOST {self.host} is reachable from other machines, whose s3:// "
                "addresses could name whatever the GPU's role can read; "
                "set IMAGE_BUCKETS=my-bucket,other/prefix/ or none, or * for all"
            )
        if self.task_max_age_s >= self.task_retention_s:
            raise ValueError("TASK_MAX_AGE_S must be less than TASK_RETENTION_S, or records vanish before they end")
        if self.resend_after_s >= self.task_max_age_s:
            raise ValueError("RESEND_AFTER_S must be less than TASK_MAX_AGE_S, or a lost message is never sent again")
        return self

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        return parse_api_keys(self.api_keys.get_secret_value())

    @property
    def rules(self) -> RequestRules:
        images = ImageUrlRules(
            allow_private=self.allow_private_image_urls,
            ports=WEB_PORTS | _ports(self.image_url_ports),
            buckets=parse_image_buckets(self.image_buckets) if self.image_buckets.strip() else ImageBuckets(),
        )
        return RequestRules(images=images, max_steps=self.max_steps, max_cfg=self.max_cfg, max_prompt=self.max_prompt)

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())


def _ports(text: str) -> frozenset[int]:
    ports = [entry.strip() for entry in text.split(",") if entry.strip()]
    for port in ports:
        if not _PORT.fullmatch(port) or int(port) > 65_535:
            raise ValueError(f"{port} is no port: write numbers from 1 to 65535, say 8080,8443")
    return frozenset(map(int, ports))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
