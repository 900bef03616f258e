"""What becomes of a message whose task could not be claimed. Pure; the record decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib.gputask.record import ErrorCode, Status, TaskRecord


@dataclass(frozen=True, slots=True)
class Obsolete:
    """There is nothing to do any more: delete the message."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The table knows no such task, as one that was restored from a backup. Nobody knows what was promised: let the
    message come again, and in the end be kept among the dead letters."""


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """Somebody works on it: let the message come again once the lease could be over."""

    lease_left_s: int


@dataclass(frozen=True, slots=True)
class Claimable:
    """Its lease ended between the claim and this look: let the message come again soon."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """It had all its attempts: fail the task, then delete the message."""

    code: ErrorCode
    message: str


Refusal = Obsolete | Unknown | HeldElsewhere | Claimable | Exhausted


def decide(task: TaskRecord | None, *, now: float, max_attempts: int) -> Refusal:
    """Judge the task as the refused claim found it; None: there is no such task."""
    if task is None:
        return Unknown()
    if task.status.is_terminal:
        return Obsolete()
    if task.is_leased(now):
        return HeldElsewhere(math.ceil((task.lease_until or now) - now) + 1)
    if task.attempts_used < max_attempts:
        return Claimable()
    if task.status is Status.PROCESSING:
        code, how = ErrorCode.WORKER_LOST, "the last one ended with its worker"
    else:
        code, how = ErrorCode.ATTEMPTS_EXHAUSTED, "none came to an end"
    return Exhausted(code, f"gave up after {task.attempts_used} attempts: {how}")
