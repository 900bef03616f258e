"""What holds for all facts, not only for those somebody thought of."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.shutdown.decision import Leave, Policy, Rule, Stop, decide
from services.shutdown.facts import CLOCK_SKEW_S, Facts, Hold, Task, Worker

NOW = 1_760_000_000.0
POLICY = Policy(idle_s=1800, worker_grace_s=900, hold_s=900, hold_max_s=14400, force_stop_after_s=600)
LONGEST_S = POLICY.idle_s + POLICY.worker_grace_s + CLOCK_SKEW_S

thoroughly = settings(max_examples=400, deadline=None)

# Mostly within the windows, so that stops and leaves are both common.
past = st.floats(NOW - 2000, NOW) | st.floats(NOW - 10_000, NOW + CLOCK_SKEW_S)
anything = st.one_of(past, st.floats(NOW + CLOCK_SKEW_S, 1e15), st.just(0.0))
counts = st.integers(0, 10_000)


def tasks(moments: st.SearchStrategy[float]) -> st.SearchStrategy[Task]:
    return st.builds(
        Task,
        task_id=st.uuids().map(str),
        status=st.sampled_from(["pending", "processing"]),
        created_at=moments,
        claimed_at=st.none() | moments,
        lease_until=st.none() | moments | st.floats(NOW, NOW + 300),
        attempt=st.integers(0, 3),
    )


def all_facts(moments: st.SearchStrategy[float]) -> st.SearchStrategy[Facts]:
    maybe = st.none() | moments
    return st.builds(
        Facts,
        now=st.just(NOW),
        state=st.just("running"),
        launched_at=maybe,
        tasks=st.lists(tasks(moments), max_size=4).map(tuple),
        last_created_at=maybe,
        last_claimed_at=maybe,
        visible=st.integers(0, 3),
        worker=st.none()
        | st.builds(Worker, beat_at=maybe, upstream_ok_at=maybe, last_claim_at=maybe, last_service_at=maybe),
        hold=st.none() | st.builds(Hold, until=moments, count=counts, put_at=maybe),
    )


def activity(facts: Facts) -> list[float]:
    """Every moment that counts as activity, gathered without the code under test."""
    worker = facts.worker or Worker()
    moments = [facts.launched_at, facts.last_created_at, facts.last_claimed_at, worker.last_claim_at]
    for task in facts.tasks:
        moments += [task.created_at, task.claimed_at]
    return [moment for moment in moments if moment is not None]


def told(facts: Facts) -> list[float]:
    """Every moment in the facts."""
    worker = facts.worker or Worker()
    told = [worker.beat_at, worker.upstream_ok_at, worker.last_service_at, *(task.lease_until for task in facts.tasks)]
    return [*activity(facts), *(moment for moment in told if moment is not None)]


@thoroughly
@given(all_facts(past))
def test_rules_a_and_b_never_stop_within_the_window_of_any_activity(facts: Facts) -> None:
    decision = decide(facts, POLICY)
    if isinstance(decision, Stop) and decision.rule is not Rule.BROKEN:
        assert all(facts.now - moment >= POLICY.idle_s for moment in activity(facts))


@thoroughly
@given(all_facts(anything))
def test_rules_a_and_b_never_stop_while_a_task_waits(facts: Facts) -> None:
    decision = decide(facts, POLICY)
    if isinstance(decision, Stop):
        assert (decision.rule is Rule.BROKEN) == bool(facts.waiting)


@thoroughly
@given(all_facts(anything))
def test_an_instance_on_which_nothing_happens_any_more_is_stopped_in_bounded_time(facts: Facts) -> None:
    """Dead worker, stuck task, nonsense on every clock: frozen facts end in a stop."""
    credible = [moment for moment in activity(facts) if moment <= NOW + CLOCK_SKEW_S]
    leases = [task.lease_until for task in facts.tasks if task.lease_until is not None and task.lease_until < 1e10]
    last_change = max([NOW, *credible, *leases])
    later = replace(facts, now=last_change + LONGEST_S)
    if not any(NOW + CLOCK_SKEW_S < moment <= later.now + CLOCK_SKEW_S for moment in told(facts)):  # one came true
        assert isinstance(decide(later, POLICY), Stop)


@thoroughly
@given(all_facts(past), st.floats(0, 100_000))
def test_while_nothing_changes_a_stop_stays_a_stop(facts: Facts, passed_s: float) -> None:
    later = replace(facts, now=facts.now + passed_s)
    if isinstance(decide(facts, POLICY), Stop) and later.waiting == facts.waiting:  # an expired lease is a change
        assert isinstance(decide(later, POLICY), Stop)


@thoroughly
@given(all_facts(past))
def test_the_named_moment_is_the_moment_of_the_stop(facts: Facts) -> None:
    decision = decide(facts, POLICY)
    if not isinstance(decision, Leave):
        return
    assert decision.stops_at is not None
    at_stop = replace(facts, now=decision.stops_at)
    if at_stop.waiting == facts.waiting:
        assert isinstance(decide(replace(facts, now=math.nextafter(decision.stops_at, 0)), POLICY), Leave)
        assert isinstance(decide(at_stop, POLICY), Stop)


@thoroughly
@given(all_facts(past), st.integers(1, 10))
def test_visible_messages_only_ever_postpone(facts: Facts, visible: int) -> None:
    unseen, seen = replace(facts, visible=0), replace(facts, visible=visible)
    if isinstance(decide(seen, POLICY), Stop):
        assert isinstance(decide(unseen, POLICY), Stop)


@thoroughly
@given(all_facts(past))
def test_only_tasks_claimed_a_window_ago_are_given_up(facts: Facts) -> None:
    decision = decide(facts, POLICY)
    if isinstance(decision, Stop):
        for task in decision.give_up:
            assert task.status == "processing"
            assert task.claimed_at is None or facts.now - task.claimed_at >= POLICY.idle_s


@thoroughly
@given(all_facts(anything))
def test_holds_are_rule_cs_grow_and_stay_below_the_cap(facts: Facts) -> None:
    decision = decide(facts, POLICY)
    if isinstance(decision, Stop):
        assert (decision.hold is not None) == (decision.rule is Rule.BROKEN)
    if isinstance(decision, Stop) and decision.hold and decision.hold != facts.hold:
        assert POLICY.hold_s <= decision.hold.until - facts.now <= POLICY.hold_max_s
        assert decision.hold.count == (facts.hold.count if facts.hold else 0) + 1
