"""The janitor's decision about one task that is not terminal. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lib.gputask.record import TaskRecord

# Far beyond any age a task may reach, and no overflow for a number of sends that makes no sense.
_MAX_DOUBLINGS = 20


class Verdict(Enum):
    KEEP = auto()
    RESEND = auto()
    EXPIRE = auto()


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds.

    Attributes:
        resend_after_s: a message not taken for so long is sent once more; the wait doubles each time, so a long
            backlog breeds few duplicates. A duplicate costs a delete: its task is claimed or finished.
        max_age_s: a task that nobody could finish for so long is failed.
    """

    resend_after_s: float
    max_age_s: float


def decide(task: TaskRecord, *, now: float, limits: Limits) -> Verdict:
    """What to do with a task as the index shows it. The writes that follow are conditional, so a stale view is safe."""
    if task.status.is_terminal or task.is_leased(now):
        return Verdict.KEEP
    if now - task.created_at >= limits.max_age_s:
        return Verdict.EXPIRE
    patience_s = limits.resend_after_s * 2.0 ** min(max(task.sends - 1, 0), _MAX_DOUBLINGS)
    if now - task.waiting_since() >= patience_s:
        return Verdict.RESEND
    return Verdict.KEEP
