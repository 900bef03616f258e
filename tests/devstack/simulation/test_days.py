"""What the simulated days prove of our policy, and what they show of the original rule."""

from functools import cache
from itertools import pairwise

import pytest

from lib.gputask.record import Status
from services.devstack.power import State
from services.devstack.simulation.day import Day, simulate
from services.devstack.simulation.numbers import DAY_S, HOUR_S, MAX_UNFINISHED_PER_CLIENT, MINUTE_S, POLICY
from services.devstack.simulation.traces import Job, Trace, all_traces
from services.shutdown.decision import Rule

CASES = [(trace.name, 1) for trace in all_traces(1)]
CASES += [(name, seed) for name in ("steady short jobs", "bursts") for seed in range(2, 7)]
# Rule A's 30 min, counted from a claim or a submission, and the minute until the Lambda looks.
LONGEST_IDLE_S = POLICY.idle_s + 2 * MINUTE_S


def trace_named(name: str, seed: int = 1) -> Trace:
    return next(trace for trace in all_traces(seed) if trace.name == name)


@cache
def day_of(name: str, policy: str, seed: int = 1) -> Day:
    return simulate(trace_named(name, seed), policy)


def states_at(day: Day, at_s: float) -> State:
    return next(part.state for part in day.history if part.since_s <= at_s < (part.until_s or DAY_S))


def runs(day: Day) -> list[tuple[float, float]]:
    """Since when and until when it ran, each time."""
    return [(run.since_s, run.until_s or DAY_S) for run in day.history if run.state is State.RUNNING]


@pytest.mark.parametrize(("name", "seed"), CASES)
class TestOurs:
    def test_ends_every_job_with_a_result_or_a_named_cause(self, name: str, seed: int) -> None:
        day = day_of(name, "ours", seed)
        assert day.stranded_at_s == ()
        assert day.completed + sum(day.failed.values()) == len(day.tasks)
        assert all(task.error_code for task in day.tasks if task.status is Status.FAILED)

    def test_kills_no_job_in_mid_work(self, name: str, seed: int) -> None:
        assert day_of(name, "ours", seed).killed_at_s == ()

    def test_runs_each_job_once(self, name: str, seed: int) -> None:
        assert {task.attempt for task in day_of(name, "ours", seed).tasks} == {1}

    def test_never_idles_longer_than_rule_a_allows(self, name: str, seed: int) -> None:
        assert day_of(name, "ours", seed).longest_idle_s <= LONGEST_IDLE_S

    def test_comes_to_rest_by_itself(self, name: str, seed: int) -> None:
        assert day_of(name, "ours", seed).history[-1].state is State.STOPPED

    def test_costs_less_than_always_on(self, name: str, seed: int) -> None:
        assert day_of(name, "ours", seed).usd < day_of(name, "always on", seed).usd == pytest.approx(53.81, abs=0.01)


@pytest.mark.parametrize(
    "name", ["steady short jobs", "one long job, one too long", "a job every 29 min", "a job every 31 min"]
)
def test_original_rule_kills_jobs_that_were_taken_at_once(name: str) -> None:
    """The alarm sees visible messages only; a job that is received within a second never was one."""
    day = day_of(name, "original")
    assert day.killed_at_s
    # One attempt is lost; the second finds the run forgotten by the restarted Unified API, and submits it again.
    assert {task.attempt for task in day.tasks} == {1, 2}
    assert len([task for task in day.tasks if task.attempt == 2]) == len(day.killed_at_s)


def test_original_rule_strands_a_job_that_arrives_while_it_stops() -> None:
    original, ours = day_of("a job while it stops", "original"), day_of("a job while it stops", "ours")
    *_, arrival_s = (job.at_s for job in original.trace.jobs)
    assert states_at(original, arrival_s) is State.STOPPING
    assert original.stranded_at_s == (arrival_s,)
    _, arrival_s, _ = (job.at_s for job in ours.trace.jobs)
    assert states_at(ours, arrival_s) is State.STOPPING
    stopped_at_s = next(part.since_s for part in ours.history if part.state is State.STOPPED and part.since_s > 0)
    # The rest of the stop, at most one look of the waker, and a start.
    assert ours.waits_s[-1] <= stopped_at_s - arrival_s + 5 + 150


def test_original_rule_strands_jobs_whose_start_was_refused() -> None:
    original, ours = day_of("no capacity for 20 min", "original"), day_of("no capacity for 20 min", "ours")
    assert len(original.stranded_at_s) == 3
    assert original.gpu_s == 0
    # The refusal, at most one more interval of the waker, and a start.
    assert ours.waits_s[-1] <= 20 * MINUTE_S + 30 + 150


def test_original_rule_strands_what_waits_behind_a_stuck_job_and_pays_for_it() -> None:
    original, ours = day_of("a stuck job", "original"), day_of("a stuck job", "ours")
    assert len(original.stranded_at_s) == 2
    assert original.history[-1].state is State.RUNNING
    assert ours.failed == {"deadline": 1}
    assert ours.completed == 3
    assert list(ours.stops_s) == [Rule.BROKEN, Rule.IDLE]


@pytest.mark.parametrize("name", ["a manual start at night", "a lost alarm"])
def test_original_rule_leaves_the_gpu_on(name: str) -> None:
    """It acts on transitions only, and there is none."""
    original = day_of(name, "original")
    assert original.history[-1].state is State.RUNNING
    assert original.longest_idle_s > 14 * HOUR_S
    assert original.stops_s == {}


def test_a_manual_start_is_stopped_after_half_an_hour() -> None:
    since_s, until_s = runs(day_of("a manual start at night", "ours"))[0]
    assert 30 * MINUTE_S <= until_s - since_s + 30 <= 32 * MINUTE_S


def test_rule_b_ends_a_stuck_job_and_tells_its_client() -> None:
    day = day_of("a stuck job and a wrong worker", "ours")
    assert day.failed == {"rule_b": 1}
    assert Rule.STUCK in day.stops_s
    original = day_of("a stuck job and a wrong worker", "original")
    assert original.failed == {}
    assert len(original.stranded_at_s) == 2


def test_rule_c_bounds_what_a_broken_adapter_costs() -> None:
    """Holds of 15, 30, 60, 120 minutes between five vain runs of a quarter of an hour each, then the repair."""
    ours, original = (day_of("a broken adapter, repaired at 15:00", policy) for policy in ("ours", "original"))
    broken = ours.trace.adapter_broken
    vain = [run for run in runs(ours) if run[0] < broken.until_s]
    assert len(vain) == len(ours.stops_s[Rule.BROKEN]) == 5
    assert all(until_s - since_s <= POLICY.worker_grace_s + MINUTE_S for since_s, until_s in vain)
    pauses_min = [(then[0] - now[1]) / MINUTE_S for now, then in pairwise(vain)]
    assert pauses_min == pytest.approx([15, 30, 60, 120], abs=2)
    assert original.longest_idle_s > 5 * HOUR_S
    assert ours.completed == original.completed == 3


def test_100_000_jobs_by_mistake_cost_a_bounded_day_and_no_other_client_its_job() -> None:
    flood = [Job(9 * HOUR_S + number / 80, 20, client="by mistake") for number in range(100_000)]
    day = simulate(Trace(name="by mistake", jobs=(*flood, Job(10 * HOUR_S, 60, client="another"))), "ours")
    (other,) = [task for task in day.tasks if task.client_id == "another"]
    assert other.status is Status.COMPLETED
    assert len(day.tasks) <= 1.1 * MAX_UNFINISHED_PER_CLIENT  # some have ended while the others were refused
    assert (day.completed, day.failed, day.killed_at_s) == (len(day.tasks), {}, ())
    assert {task.sends for task in day.tasks} == {1}
    assert set(day.stops_s) == {Rule.IDLE}
    assert states_at(day, DAY_S - 1) is State.STOPPED


def test_a_job_every_29_minutes_never_meets_a_sleeping_gpu() -> None:
    day = day_of("a job every 29 min", "ours")
    assert len(runs(day)) == 1
    assert day.waits_s[-2] == 0


def test_a_job_every_31_minutes_meets_each_edge_of_the_stop() -> None:
    day = day_of("a job every 31 min", "ours")
    met = [states_at(day, job.at_s) for job in day.trace.jobs]
    assert State.STOPPING in met
    assert State.RUNNING in met
    assert len(day.stops_s[Rule.IDLE]) == len(runs(day))
    assert day.waits_s[-1] <= 60 + 5 + 150


def test_the_long_job_goes_on_and_the_one_that_is_too_long_is_named() -> None:
    day = day_of("one long job, one too long", "ours")
    assert day.failed == {"deadline": 1}
    assert max(span.until_s - span.since_s for span in day.work) == 25 * MINUTE_S


def test_a_day_is_the_same_twice_and_another_with_another_seed() -> None:
    first, second, other = (simulate(trace_named("bursts", seed), "ours") for seed in (7, 7, 8))
    assert first == second
    assert first.trace.jobs != other.trace.jobs


def test_always_on_waits_for_nothing_but_other_jobs() -> None:
    assert day_of("a job every 31 min", "always on").waits_s == (0.0,) * 30
