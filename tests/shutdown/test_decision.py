"""The judgement as a table. Minutes ago (or ahead, negative) throughout; NOW is the moment of the look."""

from dataclasses import replace

import pytest

from services.shutdown.decision import Decision, ForceStop, Leave, Policy, Rule, Stop, decide, decide_blind
from services.shutdown.facts import CLOCK_SKEW_S, Facts, Hold, Task, Worker

NOW = 1_760_000_000.0
POLICY = Policy(idle_s=1800, worker_grace_s=900, hold_s=900, hold_max_s=14400, force_stop_after_s=600)
MS = 1000.0


def ago(minutes: float) -> float:
    return NOW - 60 * minutes


def running(launched: float | None = 120, **known: object) -> Facts:
    facts = Facts(now=NOW, state="running", launched_at=None if launched is None else ago(launched))
    return replace(facts, **known)  # type: ignore[arg-type]


def pending(created: float, *, claimed: float | None = None) -> Task:
    return Task("p", "pending", ago(created), claimed_at=None if claimed is None else ago(claimed))


def processing(created: float, claimed: float, *, lease: float | None = -3, task_id: str = "c") -> Task:
    lease_until = None if lease is None else ago(lease)
    return Task(task_id, "processing", ago(created), claimed_at=ago(claimed), lease_until=lease_until, attempt=1)


def worker(
    beat: float = 0.1, upstream: float | None = 0.1, claim: float | None = None, service: float | None = None
) -> Worker:
    return Worker(
        beat_at=ago(beat),
        upstream_ok_at=None if upstream is None else ago(upstream),
        last_claim_at=None if claim is None else ago(claim),
        last_service_at=None if service is None else ago(service),
    )


def verdict(decision: Decision) -> str:
    return decision.rule if isinstance(decision, Stop) else "leave"


A, B, C, LEAVE = "A", "B", "C", "leave"

ROWS = {
    # Rule A
    "launched long ago and nothing ever happened": (running(), A),
    "launched a minute ago": (running(launched=1), LEAVE),
    "launched just within the window": (running(launched=29.99), LEAVE),
    "launched exactly a window ago": (running(launched=30), A),
    "a task was created in the window and is finished": (running(last_created_at=ago(29)), LEAVE),
    "the last task was created before the window": (running(last_created_at=ago(30)), A),
    "an old task was claimed in the window and is finished": (running(last_claimed_at=ago(5)), LEAVE),
    "only the worker record knows of the last claim": (running(worker=worker(claim=5)), LEAVE),
    "a healthy worker alone is no reason to stay": (running(worker=worker(claim=31)), A),
    # Rule B
    "a task in its 29th minute": (running(tasks=(processing(29, 29),)), LEAVE),
    "a task in its 31st minute, lease alive": (running(tasks=(processing(31, 31),)), B),
    "a stuck task beside one that was claimed just now": (running(tasks=(processing(90, 90), processing(9, 9))), LEAVE),
    "a stuck task, while new ones came and went": (running(tasks=(processing(90, 90),), last_created_at=ago(3)), LEAVE),
    "claimed late: counted from the claim": (running(tasks=(processing(600, 10),)), LEAVE),
    "a claim without a date is at least as young as its task": (
        running(tasks=(replace(processing(20, 20), claimed_at=None),)),
        LEAVE,
    ),
    "without a lease it waits to be claimed": (running(tasks=(processing(40, 40, lease=None),)), C),
    "a lease in milliseconds is no eternal life": (
        running(tasks=(replace(processing(40, 40), lease_until=NOW * MS),)),
        C,
    ),
    "without a lease, and its worker is healthy": (
        running(launched=29, tasks=(processing(40, 40, lease=None),), worker=worker()),
        LEAVE,
    ),
    "without a lease, and claimed by nobody since the launch": (
        running(launched=31, tasks=(processing(40, 40, lease=None),), worker=worker()),
        C,
    ),
    # Rule C, nobody there
    "waiting, still booting": (running(launched=14, tasks=(pending(20),)), LEAVE),
    "waiting, and no worker since the launch": (running(launched=15, tasks=(pending(20),)), C),
    "waiting, and only beats of the launch before": (running(launched=16, tasks=(pending(20),), worker=worker(17)), C),
    "waiting, still booting, with beats of long ago": (
        running(launched=5, tasks=(pending(20),), worker=worker(beat=17, upstream=17)),
        LEAVE,
    ),
    "waiting, and the worker is healthy": (running(tasks=(pending(1),), worker=worker()), LEAVE),
    "waiting, and the worker went silent": (running(tasks=(pending(1),), worker=worker(beat=15, upstream=15)), C),
    "waiting, and it was silent for less": (running(tasks=(pending(1),), worker=worker(beat=14, upstream=14)), LEAVE),
    "waiting, and the upstream is ill": (running(tasks=(pending(1),), worker=worker(upstream=15)), C),
    "waiting, and the upstream was never well": (running(tasks=(pending(1),), worker=worker(upstream=None)), C),
    "a record without a beat is no worker": (running(tasks=(pending(1),), worker=Worker()), C),
    "an expired lease waits as well": (running(tasks=(processing(20, 20, lease=1),)), C),
    "a lease that expires this instant waits": (running(tasks=(processing(20, 20, lease=0),)), C),
    "an expired lease and a healthy worker": (running(tasks=(processing(20, 20, lease=1),), worker=worker()), LEAVE),
    "no LaunchTime excuses nobody": (running(launched=None, tasks=(pending(1),)), C),
    "no LaunchTime, but a healthy worker": (running(launched=None, tasks=(pending(1),), worker=worker()), LEAVE),
    # Rule C, no progress
    "unclaimed since the launch, worker looks healthy": (
        running(launched=30, tasks=(pending(40),), worker=worker()),
        C,
    ),
    "unclaimed, while more and more comes": (running(tasks=(pending(40), pending(1)), worker=worker()), C),
    "unclaimed for less": (running(launched=29, tasks=(pending(40),), worker=worker()), LEAVE),
    "unclaimed, but it came late": (running(tasks=(pending(29),), worker=worker()), LEAVE),
    "behind a long job": (running(tasks=(pending(60), processing(61, 25)), worker=worker(claim=25)), LEAVE),
    "behind a job that is stuck": (running(tasks=(pending(60), processing(61, 30)), worker=worker(claim=30)), C),
    "given back and claimed by nobody since": (running(tasks=(pending(90, claimed=31),), worker=worker()), C),
    "expired lately: it waits since then only": (running(tasks=(processing(90, 90, lease=5),), worker=worker()), LEAVE),
    "a backlog worked off one by one": (running(tasks=(pending(900),), worker=worker(claim=29)), LEAVE),
    # A flood's remains
    "a worker that claims nothing": (running(tasks=(pending(31),), worker=worker()), C),
    "one that deletes what a flood has left": (running(tasks=(pending(31),), worker=worker(service=1)), LEAVE),
    "one that has stopped doing so": (running(tasks=(pending(59),), worker=worker(service=30)), C),
    "one that has done so for 90 min": (running(tasks=(pending(89),), worker=worker(service=0)), LEAVE),
    "and longer": (running(tasks=(pending(90),), worker=worker(service=0)), C),
    "a service in milliseconds is none": (running(tasks=(pending(31),), worker=worker(service=-1_000_000)), C),
    "and none keeps an idle machine on": (running(launched=30, worker=worker(service=0)), A),
    # The queue's hint
    "messages visible postpone rule A": (running(launched=30, visible=1), LEAVE),
    "messages visible postpone rule A by the grace only": (running(launched=45, visible=1), A),
    "a queue that does not answer postpones as much": (running(launched=44, visible=None), LEAVE),
    "a queue that does not answer keeps nothing on": (running(launched=45, visible=None), A),
    "messages visible postpone rule B": (running(tasks=(processing(31, 31),), visible=1), LEAVE),
    "messages visible never call the worker absent": (running(launched=29, visible=9), LEAVE),
    "messages visible do not save a dead worker": (running(tasks=(pending(1),), visible=9), C),
    # Clocks
    "a task created slightly ahead of us": (running(tasks=(), last_created_at=ago(-1)), LEAVE),
    "a submission in milliseconds is no activity": (running(last_created_at=NOW * MS), A),
    "a claim in milliseconds is no activity": (running(worker=worker(claim=-1_000_000)), A),
    "a launch slightly ahead of us": (running(launched=-1, tasks=(pending(20),)), LEAVE),
    "a launch in the far future is unknown": (running(launched=-600), A),
    "beats from the far future prove nothing": (running(tasks=(pending(1),), worker=worker(beat=-600)), C),
    "a healthy upstream in the far future neither": (running(tasks=(pending(1),), worker=worker(upstream=-600)), C),
    "beats slightly ahead of us do": (running(tasks=(pending(1),), worker=worker(beat=-4, upstream=-4)), LEAVE),
    "a waiting task from the far future is still served or stopped": (
        running(tasks=(pending(-1_000_000),), worker=worker()),
        C,
    ),
}


@pytest.mark.parametrize(("facts", "expected"), ROWS.values(), ids=ROWS.keys())
def test_the_table(facts: Facts, expected: str) -> None:
    assert verdict(decide(facts, POLICY)) == expected


@pytest.mark.parametrize(("launched", "expected"), [(14, LEAVE), (15, C)])
def test_where_a_boot_may_take_longer_than_the_window_a_booting_worker_has_not_stalled(
    launched: float, expected: str
) -> None:
    facts = running(launched=launched, tasks=(pending(60),))
    assert verdict(decide(facts, replace(POLICY, idle_s=300))) == expected


@pytest.mark.parametrize(
    ("since", "forced"),
    [(None, False), (NOW, False), (NOW - 599, False), (NOW - 600, True), (NOW - 86_400, True), (NOW + 5, False)],
)
def test_a_stop_that_hangs_is_forced_and_one_whose_begin_is_unknown_is_not(since: float | None, forced: bool) -> None:
    decision = decide(Facts(now=NOW, state="stopping", stopping_since=since), POLICY)
    assert isinstance(decision, ForceStop) is forced
    assert not isinstance(decision, Stop)


@pytest.mark.parametrize("state", ["running", "pending", "stopped", "shutting-down", "terminated"])
def test_nothing_but_a_stop_is_forced(state: str) -> None:
    assert not isinstance(decide(Facts(now=NOW, state=state, stopping_since=NOW - 86_400), POLICY), ForceStop)


@pytest.mark.parametrize("state", ["pending", "stopping", "stopped", "shutting-down", "terminated"])
def test_an_instance_that_does_not_run_is_left_alone_whatever_waits(state: str) -> None:
    facts = replace(running(tasks=(pending(600), processing(90, 90)), visible=7), state=state)
    assert decide(facts, POLICY) == Leave(f"the instance is {state}")


class TestRuleB:
    def test_gives_up_every_task_that_is_still_held(self) -> None:
        stuck = (processing(90, 90, task_id="one"), processing(40, 31, task_id="two"))
        decision = decide(running(tasks=stuck), POLICY)
        assert isinstance(decision, Stop)
        assert decision.give_up == stuck
        assert decision.hold is None

    def test_says_how_many(self) -> None:
        decision = decide(running(tasks=(processing(90, 90),)), POLICY)
        assert decision.reason == "no task was created or claimed for 30 min, with 1 task still processing"


class TestHold:
    BROKEN = running(launched=20, tasks=(pending(60),))

    def hold_after(self, past: Hold | None) -> Hold:
        decision = decide(replace(self.BROKEN, hold=past), POLICY)
        assert isinstance(decision, Stop)
        assert decision.rule is Rule.BROKEN
        assert decision.hold is not None
        return decision.hold

    def test_the_first_one(self) -> None:
        assert self.hold_after(None) == Hold(until=NOW + 900, count=1, put_at=NOW)

    @pytest.mark.parametrize(
        ("count", "length_s"), [(1, 1800), (2, 3600), (3, 7200), (4, 14400), (5, 14400), (5000, 14400), (-3, 900)]
    )
    def test_each_launch_doubles_it_up_to_the_cap(self, count: int, length_s: float) -> None:
        hold = self.hold_after(Hold(until=ago(30), count=count, put_at=ago(60)))
        assert hold == Hold(until=NOW + length_s, count=max(count, 0) + 1, put_at=NOW)

    def test_one_launch_brings_one_hold_however_often_the_stop_is_repeated(self) -> None:
        past = Hold(until=ago(-14), count=1, put_at=ago(1))
        assert self.hold_after(past) == past

    def test_an_undated_one_counts_as_an_earlier_one(self) -> None:
        assert self.hold_after(Hold(until=ago(-14), count=1)).count == 2

    @pytest.mark.parametrize("facts", [running(), running(tasks=(processing(40, 40),))], ids=["A", "B"])
    def test_rules_a_and_b_put_none(self, facts: Facts) -> None:
        decision = decide(facts, POLICY)
        assert isinstance(decision, Stop)
        assert decision.hold is None


OLD_HOLD = Hold(until=ago(1), count=3, put_at=ago(60))

TRUST = {
    "healthy, nothing waits": (running(launched=5, worker=worker()), True),
    "healthy, and it has claimed since the launch": (
        running(launched=5, worker=worker(claim=1), tasks=(pending(60),)),
        True,
    ),
    "healthy, busy with a task": (running(launched=5, worker=worker(), tasks=(processing(60, 1),)), True),
    "looks healthy, but claims nothing of what waits": (
        running(launched=5, worker=worker(claim=90), tasks=(pending(60),)),
        False,
    ),
    "no worker yet": (running(launched=5), False),
    "beats of the launch before": (running(launched=5, worker=worker(beat=6, upstream=6)), False),
    "upstream not well since the launch": (running(launched=5, worker=worker(upstream=6)), False),
    "upstream never well": (running(launched=5, worker=worker(upstream=None)), False),
    "silent for the grace": (running(launched=29, worker=worker(beat=15, upstream=15)), False),
    "a clock far ahead": (running(launched=5, worker=worker(beat=-600)), False),
}


@pytest.mark.parametrize(("facts", "expected"), TRUST.values(), ids=TRUST.keys())
def test_a_hold_goes_only_for_a_worker_that_has_earned_it(facts: Facts, expected: bool) -> None:
    decision = decide(replace(facts, hold=OLD_HOLD), POLICY)
    assert isinstance(decision, Leave)
    assert decision.clear_hold is expected


def test_there_is_nothing_to_clear_without_a_hold() -> None:
    decision = decide(running(launched=5, worker=worker()), POLICY)
    assert isinstance(decision, Leave)
    assert not decision.clear_hold


class TestWhenItLooksDifferent:
    @pytest.mark.parametrize(
        ("facts", "stops_in_min"),
        [
            (running(launched=10), 20),
            (running(launched=10, visible=1), 35),
            (running(launched=10, tasks=(pending(60),)), 5),
            (running(launched=10, tasks=(pending(60),), worker=worker(beat=1, upstream=2)), 13),
            (running(launched=20, tasks=(pending(60),), worker=worker(beat=1, upstream=1)), 10),
            (running(tasks=(processing(60, 12),)), 18),
        ],
    )
    def test_it_names_the_moment_of_the_stop(self, facts: Facts, stops_in_min: float) -> None:
        decision = decide(facts, POLICY)
        assert isinstance(decision, Leave)
        assert decision.stops_at == pytest.approx(NOW + 60 * stops_in_min, abs=0.01)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (running(tasks=(pending(1),)), "1 task waiting, but no worker has reported since the launch"),
        (
            running(tasks=(pending(1),), worker=worker(20, 20)),
            "1 task waiting, but the worker last reported 20 min ago",
        ),
        (
            running(tasks=(pending(1),), worker=worker(upstream=None)),
            "1 task waiting, but the worker's upstream has not been healthy since the launch",
        ),
        (
            running(tasks=(pending(1),), worker=worker(upstream=16)),
            "1 task waiting, but the worker's upstream was last healthy 16 min ago",
        ),
        (
            running(tasks=(pending(1),), worker=worker(beat=-600)),
            "1 task waiting, but the worker's clock is ahead, so that its reports prove nothing",
        ),
        (
            running(tasks=(pending(31), pending(32)), worker=worker()),
            "2 tasks waiting, but the worker claimed nothing for 30 min",
        ),
        (running(tasks=(processing(9, 9),)), "0 tasks waiting, 1 task processing"),
        (running(last_created_at=ago(1)), "the last activity was 60 s ago"),
        (running(launched=31, visible=2), "the last activity was 31 min ago, and the queue shows messages"),
        (running(launched=31, visible=None), "the last activity was 31 min ago, and the queue does not answer"),
    ],
)
def test_the_reason_is_a_sentence_an_operator_can_act_on(facts: Facts, reason: str) -> None:
    assert decide(facts, POLICY).reason == reason


def test_the_tolerated_skew_costs_less_than_the_window() -> None:
    assert POLICY.worker_grace_s > CLOCK_SKEW_S


@pytest.mark.parametrize(
    ("unreadable", "expected"), [(0, "leave"), (30, "leave"), (44.99, "leave"), (45, "D"), (180, "D")]
)
def test_a_table_that_does_not_answer_keeps_the_instance_on_for_a_bounded_time(
    unreadable: float, expected: str
) -> None:
    decision = decide_blind(ago(unreadable), NOW, POLICY)
    assert verdict(decision) == expected
    if isinstance(decision, Leave):
        assert decision.stops_at == ago(unreadable) + POLICY.idle_s + POLICY.worker_grace_s
