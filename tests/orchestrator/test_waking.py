from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.asyncaws.instance import InstanceState
from lib.gputask.gpu import UpstreamHealth, WorkerRecord
from services.orchestrator.waking import (
    FIRST_BACKOFF_S,
    MAX_BACKOFF_S,
    STOPPING_LIMIT_S,
    Action,
    WakeFacts,
    backoff_s,
    decide,
    waiting_reason,
)

NOW = 1_800_000_000.0

_times = st.floats(min_value=NOW - 1e6, max_value=NOW + 1e6)
_facts = st.builds(
    WakeFacts,
    now=_times,
    demand=st.booleans(),
    state=st.sampled_from(InstanceState),
    hold_until=st.just(0.0) | _times,
    refusals=st.integers(min_value=0, max_value=10_000),
    refused_at=st.just(0.0) | _times,
    stopping_since=st.none() | _times,
    refused_for_good=st.booleans(),
)


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (InstanceState.STOPPED, Action.START),
        (InstanceState.STOPPING, Action.LOOK_AGAIN),
        (InstanceState.PENDING, Action.LOOK_AGAIN),
        (InstanceState.RUNNING, Action.REST),
        (InstanceState.SHUTTING_DOWN, Action.LOOK_AGAIN),
        (InstanceState.TERMINATED, Action.LOOK_AGAIN),
    ],
)
def test_demand_and_the_state_decide(state: InstanceState, action: Action) -> None:
    facts = WakeFacts(now=NOW, demand=True, state=state)
    assert decide(facts).action is action
    assert decide(replace(facts, demand=False)).action is Action.REST


@pytest.mark.parametrize(
    ("hold_until", "refusals", "refused_at", "action", "after_s"),
    [
        pytest.param(NOW + 60, 0, 0.0, Action.LOOK_AGAIN, 60, id="on hold"),
        pytest.param(NOW, 0, 0.0, Action.START, None, id="a hold that is over"),
        pytest.param(0.0, 1, NOW, Action.LOOK_AGAIN, FIRST_BACKOFF_S, id="just refused"),
        pytest.param(0.0, 1, NOW - FIRST_BACKOFF_S, Action.START, None, id="refused long enough ago"),
        pytest.param(0.0, 2, NOW - FIRST_BACKOFF_S, Action.LOOK_AGAIN, FIRST_BACKOFF_S, id="refused twice"),
        pytest.param(NOW + 60, 1, NOW - 999, Action.LOOK_AGAIN, 60, id="a hold outlasts a backoff"),
    ],
)
def test_a_stopped_instance_with_demand(
    hold_until: float, refusals: int, refused_at: float, action: Action, after_s: float | None
) -> None:
    facts = WakeFacts(
        now=NOW,
        demand=True,
        state=InstanceState.STOPPED,
        hold_until=hold_until,
        refusals=refusals,
        refused_at=refused_at,
    )
    decision = decide(facts)
    assert decision.action is action
    assert decision.after_s == after_s


@given(_facts)
def test_only_a_stopped_instance_with_demand_and_without_a_hold_is_started(facts: WakeFacts) -> None:
    if decide(facts).action is Action.START:
        assert facts.demand
        assert facts.state is InstanceState.STOPPED
        assert facts.hold_until <= facts.now
        assert not facts.refusals or facts.now >= facts.refused_at + backoff_s(facts.refusals)


@given(_facts)
def test_with_demand_and_no_running_gpu_there_is_always_a_start_or_a_next_look(facts: WakeFacts) -> None:
    decision = decide(facts)
    if facts.demand and facts.state is not InstanceState.RUNNING:
        assert decision.action is not Action.REST
    if decision.action is Action.LOOK_AGAIN:
        assert decision.after_s is not None
        assert decision.after_s > 0


@given(_facts)
def test_a_stopped_instance_is_started_once_the_next_look_is_due_twice(facts: WakeFacts) -> None:
    # Twice, because a backoff may begin to count only when a hold is over.
    due = replace(facts, demand=True, state=InstanceState.STOPPED)
    for _ in range(2):
        due = replace(due, now=math.nextafter(due.now + (decide(due).after_s or 0.0), math.inf))
    assert decide(due).action is Action.START


@given(_facts)
def test_every_decision_says_why(facts: WakeFacts) -> None:
    assert decide(facts).reason


@given(st.integers(min_value=1, max_value=10_000))
def test_the_backoff_grows_and_is_bounded(refusals: int) -> None:
    assert FIRST_BACKOFF_S <= backoff_s(refusals) <= backoff_s(refusals + 1) <= MAX_BACKOFF_S
    if backoff_s(refusals + 1) < MAX_BACKOFF_S:
        assert backoff_s(refusals + 1) == 2 * backoff_s(refusals)


@pytest.mark.parametrize(
    ("facts", "needs_operator"),
    [
        pytest.param(WakeFacts(now=NOW, demand=True, state=InstanceState.TERMINATED), True, id="terminated"),
        pytest.param(WakeFacts(now=NOW, demand=True, state=InstanceState.STOPPING), False, id="stopping"),
        pytest.param(
            WakeFacts(now=NOW, demand=True, state=InstanceState.STOPPING, stopping_since=NOW - STOPPING_LIMIT_S),
            True,
            id="stopping for ten minutes",
        ),
        pytest.param(
            WakeFacts(
                now=NOW, demand=True, state=InstanceState.STOPPED, refusals=1, refused_at=NOW, refused_for_good=True
            ),
            True,
            id="refused for good",
        ),
        pytest.param(
            WakeFacts(now=NOW, demand=True, state=InstanceState.STOPPED, refusals=1, refused_at=NOW),
            False,
            id="refused for now",
        ),
    ],
)
def test_what_only_an_operator_can_cure_is_told_apart(facts: WakeFacts, needs_operator: bool) -> None:
    assert decide(facts).needs_operator is needs_operator
    assert not decide(replace(facts, demand=False)).needs_operator


def worker(*, beat_at: float = NOW, upstream: UpstreamHealth = UpstreamHealth.HEALTHY) -> WorkerRecord:
    return WorkerRecord(instance_id="i-1", started_at=0.0, beat_at=beat_at, upstream=upstream)


@pytest.mark.parametrize(
    ("record", "started_at", "reason"),
    [
        pytest.param(None, 0.0, "GPU is running, its adapter has not reported yet", id="no record"),
        pytest.param(worker(beat_at=NOW - 331), 0.0, "GPU is running, its adapter has not reported yet", id="silent"),
        pytest.param(
            worker(beat_at=NOW - 60),
            NOW - 30,
            "GPU is running, its adapter has not reported yet",
            id="said before this start",
        ),
        pytest.param(
            worker(upstream=UpstreamHealth.UNHEALTHY), NOW - 30, "GPU is running, ComfyUI is not ready", id="unhealthy"
        ),
        pytest.param(worker(upstream=UpstreamHealth.BUSY), NOW - 30, "in the queue", id="busy"),
        pytest.param(worker(), 0.0, "in the queue", id="healthy"),
    ],
)
def test_the_queue_is_named_only_while_the_worker_could_take_a_task(
    record: WorkerRecord | None, started_at: float, reason: str
) -> None:
    assert waiting_reason(record, now=NOW, started_at=started_at) == reason
