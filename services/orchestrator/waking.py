"""The waker's decision: given what is known of demand and instance, what now? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lib.asyncaws.instance import InstanceState

FIRST_BACKOFF_S = 5.0
MAX_BACKOFF_S = 300.0
# A stop or a start takes seconds to minutes; the sooner its end is seen, the shorter the client waits.
TRANSITION_LOOK_S = 5.0


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
        refusals: starts refused in a row.
        refused_at: when the last one was.
    """

    now: float
    demand: bool
    state: InstanceState
    hold_until: float = 0.0
    refusals: int = 0
    refused_at: float = 0.0


@dataclass(frozen=True, slots=True)
class WakeDecision:
    """What to do, why, and for `LOOK_AGAIN` after how many seconds."""

    action: Action
    reason: str
    after_s: float | None = None


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
            return WakeDecision(Action.LOOK_AGAIN, "GPU is stopping, it starts again after that", TRANSITION_LOOK_S)
        case InstanceState.STOPPED:
            return _decide_stopped(facts)
        case _:
            # Only an operator can help, by another GPU_INSTANCE_ID; whoever waits shall read why.
            return WakeDecision(Action.LOOK_AGAIN, f"GPU is {facts.state.value} for good", MAX_BACKOFF_S)


def _decide_stopped(facts: WakeFacts) -> WakeDecision:
    held_s = facts.hold_until - facts.now
    if held_s > 0:
        return WakeDecision(Action.LOOK_AGAIN, "GPU is on hold after a start without a working worker", held_s)
    if facts.refusals:
        left_s = facts.refused_at + backoff_s(facts.refusals) - facts.now
        if left_s > 0:
            return WakeDecision(Action.LOOK_AGAIN, "GPU start was refused", left_s)
    return WakeDecision(Action.START, "demand, and the GPU is stopped")
