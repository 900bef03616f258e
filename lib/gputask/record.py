"""A task as the table knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where a task is in its life. `completed` and `failed` are terminal and never change."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED)


LIVE = (Status.PENDING, Status.PROCESSING)

WITHDRAWN = "withdrawn"
"""In place of an error code: the task was taken back before anybody was promised it. Nobody is shown or counts it."""

LONGEST_LEASE_S = 86_400.0
"""No lease of ours ends later: SQS hides a message for 12 h at the most. A time beyond is of another clock or unit."""


MOST_SPARED = 5
"""So many claims of a task may come to nothing without being counted as attempts. Without a bound a task that is always
refused would keep the GPU on."""


class ErrorCode(StrEnum):
    """Why a task failed."""

    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_REJECTED = "upstream_rejected"
    DEADLINE = "deadline"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    WORKER_LOST = "worker_lost"
    RULE_B = "rule_b"
    DEAD_LETTER = "dead_letter"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One task. Times are epoch seconds; what the index does not project is empty when read from there.

    Attributes:
        job_type: the api path the task came by and goes on to, e.g. ``/api/v1/camera-angle/jobs``.
        request_body: the JSON text as the client sent it; empty where it is large, see `TaskStore.with_request`.
        request_sha256: of the body's canonical form; tells whether an Idempotency-Key is reused for another request.
        creation: made up for this record; tells it from one that another request with its Idempotency-Key made.
        queued_at: when its message was last put into the queue.
        sends: how often that was.
        attempt: how often it was claimed; the fencing token of every write a worker makes.
        spared: claims that the upstream took no job for; they do not count as attempts, up to `MOST_SPARED`.
        client_id: whose it is; empty: the operator's, as no key names that client.
        lease_until: until when the claim holds unless renewed.
        expires_at: when DynamoDB's TTL may delete the record (it does so within two days).
    """

    task_id: str
    status: Status
    job_type: str
    created_at: float
    updated_at: float
    queued_at: float = 0.0
    sends: int = 0
    attempt: int = 0
    spared: int = 0
    client_id: str = ""
    request_id: str = ""
    request_body: str = ""
    request_sha256: str = ""
    creation: str = ""
    claimed_at: float | None = None
    lease_until: float | None = None
    worker: str | None = None
    comfy_job_id: str | None = None
    finished_at: float | None = None
    result_s3_uri: str | None = None
    error_message: str | None = None
    error_code: str | None = None
    expires_at: float | None = None

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> TaskRecord:
        """The record in a table item.

        Another version or another program may have written it: what is missing or of another type is as if it had
        never been said, and attributes that this version does not know are left out.

        Raises:
            ValueError: its status is none of ours.
        """
        record = cls(**{name: _READERS[name](item.get(name)) for name in _FIELDS})
        # Whoever fails a task by hand may call the message what the API's clients call it.
        told = _text(item.get("error")) if record.status is Status.FAILED and not record.error_message else None
        return replace(record, error_message=told) if told else record

    def to_item(self) -> dict[str, Any]:
        """The table item; what is None is not written."""
        return {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}

    def is_expired(self, now: float) -> bool:
        """Expired records stay readable until TTL gets to them, so whoever reads must look."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def is_withdrawn(self) -> bool:
        """As good as no task: it stays only to tell its message, should that exist, from one of an unknown task."""
        return self.status is Status.FAILED and self.error_code == WITHDRAWN

    @property
    def attempts_used(self) -> int:
        """Claims that count: what `transitions.claim` compares with the limit."""
        return self.attempt - min(self.spared, MOST_SPARED)

    def is_leased(self, now: float) -> bool:
        """Some worker holds it and has not missed its heartbeats; the opposite of what `transitions` calls unheld."""
        if self.status is not Status.PROCESSING or self.lease_until is None:
            return False
        return now < self.lease_until <= now + LONGEST_LEASE_S

    def waiting_since(self) -> float:
        """The moment from which a worker could have taken it: put into the queue, or left by its last worker."""
        if self.status is Status.PROCESSING and self.lease_until is not None:
            return max(self.lease_until, self.queued_at)
        return self.queued_at or self.updated_at


def _moment(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _known_moment(value: Any) -> float:
    return _moment(value) or 0.0


def _count(value: Any) -> int:
    return max(int(_known_moment(value)), 0)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _known_text(value: Any) -> str:
    return _text(value) or ""


# By the field's annotation, which is text in this module.
_READERS_BY_TYPE: Mapping[str, Callable[[Any], Any]] = {
    "Status": Status,
    "str": _known_text,
    "str | None": _text,
    "float": _known_moment,
    "float | None": _moment,
    "int": _count,
}
_READERS = {field.name: _READERS_BY_TYPE[str(field.type)] for field in fields(TaskRecord)}
_FIELDS = tuple(_READERS)
