"""What was seen of a deployment. Pure data; every time is in epoch seconds by AWS's clock, every span in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from lib.gputask.gpu import InstanceHold

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Absent:
    """AWS answered: there is none."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """The look failed, so nothing is known.

    Attributes:
        problem: who refused what, e.g. ``dynamodb:DescribeTable: AccessDeniedException: ...``.
        fix: what to do so that the next look succeeds.
    """

    problem: str
    fix: str


Seen: TypeAlias = T | Absent | Unseen


@dataclass(frozen=True, slots=True)
class Identity:
    """Who looks."""

    account: str
    arn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Attributes of a queue.

    Attributes:
        dead_letter_arn, max_receive_count: of its redrive policy.
        redrive_permission: who may use it as a dead-letter queue: ``allowAll`` (no policy), ``denyAll``, ``byQueue``.
        redrive_sources: the queues that may, for ``byQueue``.
    """

    arn: str
    visibility_s: float
    receive_wait_s: float
    retention_s: float
    is_encrypted: bool
    visible: int
    dead_letter_arn: str | None = None
    max_receive_count: int = 0
    redrive_permission: str = "allowAll"
    redrive_sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Index:
    """A global secondary index; `attributes` are those of an INCLUDE projection."""

    key: tuple[str, ...]
    projection: str
    attributes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The task table."""

    arn: str
    key: tuple[str, ...]
    indexes: Mapping[str, Index]
    is_protected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric an alarm looks at; `id` is its name in the expression."""

    id: str
    namespace: str
    name: str
    statistic: str
    period_s: int
    dimensions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """An alarm; `expression` is None where it looks at its only metric as it is."""

    arn: str
    metrics: tuple[Metric, ...]
    expression: str | None
    comparison: str
    threshold: float
    evaluation_periods: int
    datapoints_to_alarm: int
    missing_data: str
    has_actions_enabled: bool
    actions: tuple[str, ...]
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """The shutdown Lambda as deployed. `state`, `update`: Lambda's State and LastUpdateStatus."""

    arn: str
    handler: str
    state: str
    update: str
    variables: Mapping[str, str]
    modified_at: float


@dataclass(frozen=True, slots=True)
class Grant:
    """One Allow in a function's resource policy; no `source_arn`: any source of that principal."""

    principal: str
    source_arn: str | None
    source_account: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """An EventBridge rule that has the function as a target."""

    name: str
    arn: str
    is_enabled: bool
    schedule: str | None
    pattern: str | None


@dataclass(frozen=True, slots=True)
class Invocations:
    """What CloudWatch counted of the function within the last `within_s`."""

    count: int
    errors: int
    within_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The GPU instance; `profile_arn` None: it has no permissions at all."""

    state: str
    launched_at: float
    tags: Mapping[str, str]
    profile_arn: str | None
    needs_token: bool
    hop_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What the adapter wrote of itself. Any part may be missing: another process wrote it."""

    beat_at: float = 0.0
    last_claim_at: float = 0.0
    upstream: str = ""
    upstream_ok_at: float = 0.0
    upstream_remark: str = ""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Moments of tasks: the oldest that is not finished, and the newest of all; None: there is none."""

    oldest_unfinished_at: float | None
    newest_at: float | None


@dataclass(frozen=True, slots=True)
class Service:
    """The orchestrator's HTTP statuses."""

    health: int
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the diagnosis looks at.

    Attributes:
        now: by AWS's clock.
        skew_s: this machine's clock minus AWS's; None if no answer was dated.
        ttl: the table's TTL attribute.
        recovery: whether the table can be restored to a point in time.
        concurrency: what is reserved for the function; None: nothing is, and it may run as any other.
        service: None: its address is not told.
    """

    now: float
    skew_s: float | None
    identity: Identity
    table: Seen[Table]
    ttl: Seen[str]
    recovery: Seen[bool]
    queue: Seen[Queue]
    dead_letters: Seen[Queue]
    alarm: Seen[Alarm]
    function: Seen[Function]
    concurrency: Seen[int | None]
    grants: Seen[tuple[Grant, ...]]
    rules: Seen[tuple[Rule, ...]]
    invocations: Seen[Invocations]
    instance: Seen[Instance]
    hold: Seen[InstanceHold]
    worker: Seen[Worker]
    tasks: Seen[Tasks]
    service: Seen[Service] | None = field(default=None)
