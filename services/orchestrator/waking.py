"""The waker's decision: given what is known of demand and instance, what now? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lib.asyncaws.instance import InstanceState
from lib.gputask.gpu import UpstreamHealth, WorkerRecord

FIRST_BACKOFF_S = 5.0
MAX_BACKOFF_S = 300.0
# A stop or a start takes seconds to minutes; the sooner its end is seen, the shorter the client waits.
TRANSITION_LOOK_S = 5.0
# EC2 cuts the power after a few minutes, so a stop that takes longer than this needs a person.
STOPPING_LIMIT_S = 600.0
# An adapter beats every WORKER_BEAT_S, which is 300 s at the most.
_BEAT_LIMIT_S = 330.0


class Action(Enum):
    REST = auto()
    START = auto()
    LOOK_AGAIN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeFacts:
    """What one look has found. Times are epoch seconds.

    Attributes:
        demand: some task is pending or processing.
        hold_until: no start before; set by the shutdown Lambda after a start that came to nothing.
        stopping_since: since when it has been seen stopping; None: it is not.
        refusals: starts refused in a row.
        refused_at: when the last one was.
        refused_for_good: for a reason that does not pass by itself, such as a quota or a missing permission.
    """

    now: float
    demand: bool
    state: InstanceState
    hold_until: float = 0.0
    stopping_since: float | None = None
    refusals: int = 0
    refused_at: float = 0.0
    refused_for_good: bool = False


@dataclass(frozen=True, slots=True)
class WakeDecision:
    """What to do, why, and for `LOOK_AGAIN` after how many seconds. `needs_operator`: only a person can help."""

    action: Action
    reason: str
    after_s: float | None = None
    needs_operator: bool = False


def backoff_s(refusals: int) -> float:
    """Seconds to wait after so many refusals in a row."""
    return min(FIRST_BACKOFF_S * 2.0 ** min(refusals - 1, 20), MAX_BACKOFF_S)


def decide(facts: WakeFacts) -> WakeDecision:
    """Level-triggered: the same facts give the same answer, whoever asks, however often.

    `running` and `pending` need nothing. Starting while `stopping` is an error at EC2, so the look is repeated until
    the instance is `stopped`.
    """
    if not facts.demand:
        return WakeDecision(Action.REST, "no demand")
    match facts.state:
        case InstanceState.RUNNING:
            return WakeDecision(Action.REST, "GPU is running")
        case InstanceState.PENDING:
            return WakeDecision(Action.LOOK_AGAIN, "GPU is starting", TRANSITION_LOOK_S)
        case InstanceState.STOPPING:
            return _decide_stopping(facts)
        case InstanceState.STOPPED:
            return _decide_stopped(facts)
        case _:
            # Only an operator can help, by another GPU_INSTANCE_ID; whoever waits shall read why.
            reason = f"GPU is {facts.state.value} for good"
            return WakeDecision(Action.LOOK_AGAIN, reason, MAX_BACKOFF_S, needs_operator=True)


def _decide_stopping(facts: WakeFacts) -> WakeDecision:
    since = facts.now if facts.stopping_since is None else facts.stopping_since
    if facts.now - since >= STOPPING_LIMIT_S:
        reason = f"GPU has been stopping for more than {STOPPING_LIMIT_S / 60:g} min"
        return WakeDecision(Action.LOOK_AGAIN, reason, TRANSITION_LOOK_S, needs_operator=True)
    return WakeDecision(Action.LOOK_AGAIN, "GPU is stopping, it starts again after that", TRANSITION_LOOK_S)


def _decide_stopped(facts: WakeFacts) -> WakeDecision:
    held_s = facts.hold_until - facts.now
    if held_s > 0:
        return WakeDecision(Action.LOOK_AGAIN, "GPU is on hold after a start without a working worker", held_s)
    if facts.refusals:
        left_s = facts.refused_at + backoff_s(facts.refusals) - facts.now
        if left_s > 0:
            return WakeDecision(Action.LOOK_AGAIN, "GPU start was refused", left_s, facts.refused_for_good)
    return WakeDecision(Action.START, "demand, and the GPU is stopped")


def waiting_reason(worker: WorkerRecord | None, *, now: float, started_at: float) -> str:
    """Why a task waits although the GPU runs, for people.

    Args:
        worker: what the adapter last said of itself; None: nothing.
        started_at: when the instance was told to start, as far as it is known; what was said before proves nothing.
    """
    if worker is None or worker.beat_at < max(started_at, now - _BEAT_LIMIT_S):
        return "GPU is running, its adapter has not reported yet"
    if worker.upstream is UpstreamHealth.UNHEALTHY:
        return "GPU is running, ComfyUI is not ready"
    return "in the queue"
