"""The janitor's decisions about a task that is not terminal, and about a dead letter. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lib.gputask.record import TaskRecord

# Far beyond any age a task may reach, and no overflow for a number of sends that makes no sense.
_MAX_DOUBLINGS = 20
# A task that was claimed and came back so often by the dead-letter queue will not end by itself.
_MOST_SENDS = 10
# Of its greatest age a task waits so much while the queue seems to hold its message: two or three copies in all.
_COVERED_SHARE = 0.25
# Of the tasks that a walk of many rounds has seen, so many at least are still there.
_OF_A_LONG_WALK = 0.9
# Fewer obsolete messages a worker deletes in seconds.
_WORTH_A_SWEEP = 100
# A record without a request cannot be sent again; its message may still be on its way for so many waits.
_WAITS_WITHOUT_REQUEST = 6


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


class Burial(Enum):
    """What becomes of a dead letter: `WAIT` and `KEEP` leave it, after the others it is deleted."""

    WAIT = auto()
    KEEP = auto()
    NOTHING_LEFT = auto()
    FAIL = auto()
    RESEND = auto()


def decide(task: TaskRecord, *, now: float, limits: Limits, is_covered: bool) -> Verdict:
    """What to do with a task as the index shows it. The writes that follow are conditional, so a stale view is safe.

    Args:
        is_covered: the queue holds as many messages as tasks have no end. Then this one's is probably among them and
            waits for its turn: of a flood each task would be queued many times over, and all copies be taken before
            what comes after the flood. It is a hint, for a queue counts approximately, so it only lengthens the wait.
    """
    if task.status.is_terminal or task.is_leased(now):
        return Verdict.KEEP
    # One created as far in the future is of another clock or unit, say milliseconds, and would never grow old.
    if abs(now - task.created_at) >= limits.max_age_s:
        return Verdict.EXPIRE
    patience_s = limits.resend_after_s * 2.0 ** min(max(task.sends - 1, 0), _MAX_DOUBLINGS)
    if is_covered:
        patience_s = max(patience_s, limits.max_age_s * _COVERED_SHARE)
    if now - task.waiting_since() >= patience_s:
        return Verdict.RESEND
    return Verdict.KEEP


def decide_letter(task: TaskRecord | None, *, is_runnable: bool, now: float) -> Burial:
    """What to do with a dead letter and its task.

    Ten receives say little of a task: workers that may not write, or that were stopped again and again, cost receives
    too. So a task that may still run is queued again. It ends all the same: each claim counts an attempt, and the task
    has a greatest age.

    Args:
        is_runnable: a worker could read the letter.
    """
    if task is None:
        # Perhaps the table was restored from a backup: the letter is all that is left of what was promised.
        return Burial.KEEP if is_runnable else Burial.NOTHING_LEFT
    if task.status.is_terminal:
        return Burial.NOTHING_LEFT
    if task.is_leased(now):
        return Burial.WAIT
    if is_runnable and (task.attempt == 0 or task.sends < _MOST_SENDS):
        return Burial.RESEND
    return Burial.FAIL


def covers(*, messages: int, seen: int, is_whole: bool) -> bool:
    """Whether a queue with so many messages seems to hold one for each task without an end.

    Args:
        seen: such tasks, since the walk along them began at the oldest.
        is_whole: there are no others. A walk of many rounds takes so long that some have ended meanwhile.
    """
    return messages >= (seen if is_whole else seen * _OF_A_LONG_WALK)


def surplus(*, messages: int, live: int) -> int:
    """How many messages the queue holds that tell of ended tasks, if they are enough to be worth a sweep; else 0."""
    over = messages - live
    return over if over >= _WORTH_A_SWEEP else 0


def is_lost(task: TaskRecord, *, now: float, limits: Limits) -> bool:
    """Whether a task whose request is not in its record, as of another program, has waited for its message in vain."""
    return now - task.waiting_since() >= _WAITS_WITHOUT_REQUEST * limits.resend_after_s
