"""The edges of a task's life, as data: which record each verb may change, and how.

Every edge is one conditional write. A terminal record matches no condition, so it never changes; a worker's writes are
fenced by the attempt it was given, so a worker that lost its lease cannot publish.

    (none) --create--> pending --claim--> processing --finish / fail--> completed / failed
                 |           ^                |  `--claim again once the lease has expired
                 |           `----release-----'
                 `--withdraw--> failed, as if it had never been
    pending, or processing with an expired lease --give up--> failed

In `processing` the holder also renews its lease (hold) and writes down the run upstream; `resend` announces another
message for a task that nobody holds. The shutdown Lambda has an edge of its own, from `processing` to `failed`: rule B.

Whatever has a live status gets an end, also a record that another version or another program wrote: a lease that is
missing, of another type or beyond any lease of ours has run out, and an attempt that is missing is 0.
"""

from __future__ import annotations

from dataclasses import replace

from lib.asyncaws.conditions import (
    AllOf,
    AnyOf,
    AtMost,
    Change,
    Condition,
    Equals,
    LessThan,
    Missing,
    MoreThan,
    NoNumber,
)
from lib.gputask.record import LONGEST_LEASE_S, MOST_SPARED, WITHDRAWN, ErrorCode, Status, TaskRecord

_STATUS = "status"


def creatable(now: float) -> Condition:
    """No such task; one that was withdrawn, or that TTL has yet to delete, counts as gone."""
    return AnyOf(Missing("task_id"), AtMost("expires_at", now), Equals("error_code", WITHDRAWN))


def withdraw(record: TaskRecord, *, now: float) -> Change:
    """Just created by us and seen by nobody: the request that made it was not accepted after all.

    Its message may exist, for a send may succeed without an answer. So a record stays and says that there is nothing to
    do; without a time of creation, for what nobody was promised is no activity that keeps the GPU on.
    """
    untouched = AllOf(
        Equals(_STATUS, Status.PENDING),
        Equals("attempt", 0),
        Equals("created_at", record.created_at),
        Equals("creation", record.creation),
        Equals("sends", 1),
    )
    withdrawn = _failed(untouched, now=now, code=WITHDRAWN, message="its client was told to try again")
    return replace(withdrawn, assign={**withdrawn.assign, "created_at": None})


def claim(*, worker: str, now: float, lease_until: float, max_attempts: int) -> Change:
    """Take a task that waits, or whose worker has gone silent."""
    return Change(
        condition=AllOf(_unheld(now), _has_attempts_left(max_attempts)),
        assign={
            _STATUS: Status.PROCESSING,
            "worker": worker,
            "claimed_at": now,
            "lease_until": lease_until,
            "updated_at": now,
        },
        add={"attempt": 1},
    )


def count_attempts_anew(now: float) -> Change:
    """For a record whose attempt is no number, to which no claim could add."""
    return Change(condition=AllOf(_unheld(now), NoNumber("attempt")), assign={"attempt": 0})


def mend_attempt(*, attempt: float, now: float) -> Change:
    """For a claim that was added to a number which no attempt of ours has, below 1 or a fraction."""
    condition = AllOf(Equals(_STATUS, Status.PROCESSING), Equals("attempt", attempt))
    return Change(condition=condition, assign={"attempt": max(int(attempt), 1), "updated_at": now})


def hold(*, attempt: int, now: float, lease_until: float) -> Change:
    """Renew the lease."""
    return Change(condition=_held_by(attempt), assign={"lease_until": lease_until, "updated_at": now})


def note_upstream_job(*, attempt: int, now: float, comfy_job_id: str) -> Change:
    """Write down the upstream's id, so that whoever comes after can adopt the run instead of repeating it."""
    return Change(condition=_held_by(attempt), assign={"comfy_job_id": comfy_job_id, "updated_at": now})


def finish(*, attempt: int, now: float, result_s3_uri: str) -> Change:
    return Change(
        condition=_held_by(attempt),
        assign={
            _STATUS: Status.COMPLETED,
            "result_s3_uri": result_s3_uri,
            "finished_at": now,
            "updated_at": now,
            "lease_until": None,
        },
    )


def fail(*, attempt: int, now: float, code: ErrorCode, message: str) -> Change:
    return _failed(_held_by(attempt), now=now, code=code, message=message)


def release(*, attempt: int, now: float, keep_upstream_job: bool, spared: int | None = None) -> Change:
    """Give a task back: for somebody to adopt its run upstream, or without it for another attempt.

    `spared`: how many of its claims do not count as attempts from now on; None: as many as before. The attempt itself
    is never counted down, because two claims of one number could not be told apart.
    """
    forgotten = {} if keep_upstream_job else {"comfy_job_id": None}
    pardoned = {} if spared is None else {"spared": spared}
    return Change(
        condition=_held_by(attempt),
        assign={
            _STATUS: Status.PENDING,
            "queued_at": now,
            "updated_at": now,
            "lease_until": None,
            "worker": None,
            **forgotten,
            **pardoned,
        },
    )


def resend(record: TaskRecord, *, now: float) -> Change:
    """Announce that its message is put into the queue once more. Of several who see the need, one gets to do it.

    The number of sends tells them apart within one millisecond; the time tells whether a worker gave it back since.
    """
    return Change(
        condition=AllOf(_unheld(now), _as_read("queued_at", record.queued_at), _as_read("sends", record.sends)),
        assign={"queued_at": now, "updated_at": now, "sends": record.sends + 1},
    )


def give_up(*, now: float, code: ErrorCode, message: str) -> Change:
    """Fail a task that no worker holds."""
    return _failed(_unheld(now), now=now, code=code, message=message)


def _unheld(now: float) -> Condition:
    has_run_out = AnyOf(
        AtMost("lease_until", now), NoNumber("lease_until"), MoreThan("lease_until", now + LONGEST_LEASE_S)
    )
    return AnyOf(Equals(_STATUS, Status.PENDING), AllOf(Equals(_STATUS, Status.PROCESSING), has_run_out))


def _has_attempts_left(max_attempts: int) -> Condition:
    """Compares `TaskRecord.attempts_used`: an expression cannot subtract one attribute from another."""
    with_spared = (
        AllOf(MoreThan("spared", count - 1), LessThan("attempt", max_attempts + count))
        for count in range(1, MOST_SPARED + 1)
    )
    return AnyOf(Missing("attempt"), LessThan("attempt", max_attempts), *with_spared)


def _as_read(attribute: str, value: float) -> Condition:
    """The number is as the record was read, where what is no number counts as 0."""
    return Equals(attribute, value) if value else AnyOf(Equals(attribute, 0), NoNumber(attribute))


def _held_by(attempt: int) -> Condition:
    return AllOf(Equals(_STATUS, Status.PROCESSING), Equals("attempt", attempt))


def _failed(condition: Condition, *, now: float, code: str, message: str) -> Change:
    return Change(
        condition=condition,
        assign={
            _STATUS: Status.FAILED,
            "error_code": code,
            "error_message": message,
            "finished_at": now,
            "updated_at": now,
            "lease_until": None,
        },
    )
