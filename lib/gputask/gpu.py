"""What the two sides note about the GPU itself, beside the tasks in the same table.

The worker record is a heartbeat: the adapter writes it, the shutdown Lambda reads it. The instance record is a hold:
the Lambda writes it after a start that came to nothing, the orchestrator's waker respects it. Neither has a `status`,
so the index of tasks does not contain them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lib.asyncaws.conditions import Change


class UpstreamHealth(StrEnum):
    """What the worker thinks of the Unified API. One that is silent over a job within its deadline is busy."""

    HEALTHY = "healthy"
    BUSY = "busy"
    UNHEALTHY = "unhealthy"


_WORKER_PREFIX = "worker#"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """Times in epoch seconds.

    Attributes:
        upstream_ok_at: when the upstream was last healthy, or rightly busy.
        upstream_remark: what an operator should know of it, e.g. that its restart was asked for.
        last_service_at: when it last deleted a message whose task had ended already.
        active: ids of the tasks in work.
    """

    instance_id: str
    started_at: float
    beat_at: float
    upstream: UpstreamHealth
    upstream_ok_at: float | None = None
    upstream_remark: str = ""
    last_claim_at: float | None = None
    last_service_at: float | None = None
    active: tuple[str, ...] = ()

    @classmethod
    def from_item(cls, item: Mapping[str, Any] | None) -> WorkerRecord | None:
        """The record in a table item; None if there is none, or none that says when the worker beat last."""
        known = item or {}
        beat_at = _moment(known.get("beat_at"))
        if beat_at is None:
            return None
        upstream = known.get("upstream")
        return cls(
            instance_id=str(known.get("task_id", "")).removeprefix(_WORKER_PREFIX),
            started_at=_moment(known.get("started_at")) or 0.0,
            beat_at=beat_at,
            upstream=UpstreamHealth(upstream) if upstream in list(UpstreamHealth) else UpstreamHealth.UNHEALTHY,
            upstream_ok_at=_moment(known.get("upstream_ok_at")),
            upstream_remark=str(known.get("upstream_remark", "")),
        )

    def to_change(self) -> Change:
        """What a beat writes. What this process does not know yet stays as its predecessor has told it.

        Otherwise an adapter that is restarted over a busy upstream would look like one whose upstream was never
        healthy, and rule C would stop the instance in the middle of that work.
        """
        known = {
            "upstream_ok_at": self.upstream_ok_at,
            "last_claim_at": self.last_claim_at,
            "last_service_at": self.last_service_at,
        }
        return Change(
            condition=None,
            assign={
                "started_at": self.started_at,
                "beat_at": self.beat_at,
                "updated_at": self.beat_at,
                "upstream": self.upstream,
                "upstream_remark": self.upstream_remark or None,
                "active": list(self.active),
                **{name: value for name, value in known.items() if value is not None},
            },
        )


@dataclass(frozen=True, slots=True)
class InstanceHold:
    """The instance shall not be started before `until` (epoch seconds)."""

    until: float
    reason: str

    @classmethod
    def from_item(cls, item: Mapping[str, Any] | None) -> InstanceHold | None:
        """The hold in a table item; None if there is none, or none that says until when."""
        until = (item or {}).get("hold_until")
        if item is None or not isinstance(until, int | float):
            return None
        return cls(until=until, reason=str(item.get("hold_reason", "")))


def worker_key(instance_id: str) -> str:
    return f"{_WORKER_PREFIX}{instance_id}"


def instance_key(instance_id: str) -> str:
    return f"instance#{instance_id}"


def _moment(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
