"""The Lambda's environment. Names as everywhere in this system; no default names a resource."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from services.shutdown.decision import Policy
from services.shutdown.errors import SettingError


@dataclass(frozen=True, slots=True)
class Settings:
    """What one deployment of the Lambda is told. ``alert_topic_arn`` None: nobody is alerted; ``metrics``: whether any
    are written."""

    region: str
    instance_id: str
    table: str
    queue_url: str
    alert_topic_arn: str | None
    log_level: str
    metrics: bool
    metrics_namespace: str
    policy: Policy

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read and check all of it.

        Raises:
            SettingError: names the first variable that is missing or wrong.
        """
        return cls(
            region=_text(environ, "AWS_REGION"),
            instance_id=_text(environ, "GPU_INSTANCE_ID"),
            table=_text(environ, "DYNAMODB_TABLE"),
            queue_url=_text(environ, "SQS_QUEUE_URL"),
            alert_topic_arn=environ.get("ALERT_TOPIC_ARN", "").strip() or None,
            log_level=_log_level(environ),
            metrics=_metrics(environ),
            metrics_namespace=environ.get("METRICS_NAMESPACE", "").strip() or "gpu-on-demand",
            policy=_policy(environ),
        )


def _policy(environ: Mapping[str, str]) -> Policy:
    policy = Policy(
        idle_s=_seconds(environ, "IDLE_S", 1800),
        worker_grace_s=_seconds(environ, "WORKER_GRACE_S", 900),
        hold_s=_seconds(environ, "HOLD_S", 900),
        hold_max_s=_seconds(environ, "HOLD_MAX_S", 14400),
        force_stop_after_s=_seconds(environ, "FORCE_STOP_AFTER_S", 600),
    )
    if policy.hold_max_s < policy.hold_s:
        raise SettingError("HOLD_MAX_S", f"must not be below HOLD_S ({policy.hold_s:g}), is {policy.hold_max_s:g}")
    return policy


def _text(environ: Mapping[str, str], name: str) -> str:
    text = environ.get(name, "").strip()
    if not text:
        raise SettingError(name, "is not set")
    return text


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        raise SettingError(name, f"must be a number of seconds, is {text!r}") from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise SettingError(name, f"must be a positive number of seconds, is {text!r}")
    return seconds


def _log_level(environ: Mapping[str, str]) -> str:
    level = environ.get("LOG_LEVEL", "").strip().upper() or "INFO"
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
        raise SettingError("LOG_LEVEL", f"must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, is {level!r}")
    return level


def _metrics(environ: Mapping[str, str]) -> bool:
    destination = environ.get("METRICS", "").strip().lower() or "off"
    if destination not in {"off", "log"}:
        raise SettingError("METRICS", f"must be off or log, is {destination!r}")
    return destination == "log"
