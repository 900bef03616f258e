from __future__ import annotations

import math
import re
from collections.abc import Iterable

import pytest

from lib.asyncaws.metrics import NAMESPACE_PATTERN, Kind, Metric, Metrics, NoMetrics, Series, Unit, batches, chunks

DONE = Metric("Done", Unit.COUNT, Kind.SUM)
STATE = Metric("State", Unit.NONE, Kind.LAST)
TIME = Metric("Time", Unit.SECONDS, Kind.EACH)


def values(series: Iterable[Series], metric: Metric) -> dict[float, int]:
    (found,) = [one.values for one in series if one.metric == metric]
    return dict(found)


def test_counts_add_up_states_replace_each_other_and_times_are_all_kept() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.add(DONE)
    metrics.add(DONE, 2)
    for state in (0, 1, 1):
        metrics.add(STATE, state)
    for seconds in (0.5, 2.0, 0.5):
        metrics.add(TIME, seconds)
    taken = metrics.take()
    assert values(taken, DONE) == {5: 1}
    assert values(taken, STATE) == {1: 1}
    assert values(taken, TIME) == {0.5: 2, 2.0: 1}


def test_what_was_taken_is_not_published_again_and_silence_costs_nothing() -> None:
    metrics = Metrics()
    metrics.add(DONE)
    metrics.take()
    assert metrics.take() == []


def test_each_value_of_a_dimension_is_a_metric_of_its_own() -> None:
    metrics = Metrics()
    for cause in ("deadline", "deadline", "rule_b"):
        metrics.add(DONE.by(Cause=cause))
    assert {one.metric.dimensions: dict(one.values) for one in metrics.take()} == {
        (("Cause", "deadline"),): {2: 1},
        (("Cause", "rule_b"),): {1: 1},
    }


def test_what_could_not_be_published_is_added_to_what_came_since() -> None:
    metrics = Metrics()
    metrics.add(DONE, 2)
    metrics.add(TIME, 1.0)
    metrics.add(STATE, 0)
    unpublished = metrics.take()
    metrics.add(DONE)
    metrics.add(TIME, 1.0)
    metrics.add(STATE, 1)
    metrics.put_back(unpublished)
    taken = metrics.take()
    assert values(taken, DONE) == {3: 1}
    assert values(taken, TIME) == {1.0: 2}
    assert values(taken, STATE) == {1: 1}, "the later one"


def test_a_state_that_was_not_published_is_the_last_known_until_another_is_seen() -> None:
    metrics = Metrics()
    metrics.add(STATE, 1)
    metrics.put_back(metrics.take())
    assert values(metrics.take(), STATE) == {1: 1}


@pytest.mark.parametrize(
    ("value", "kept"), [(0.123456, 0.123), (12345.6, 12300.0), (1000, 1000.0), (0, 0.0), (1e-9, 0.0), (-0.5556, -0.556)]
)
def test_times_are_kept_to_three_digits(value: float, kept: float) -> None:
    metrics = Metrics()
    metrics.add(TIME, value)
    ((shown, times),) = values(metrics.take(), TIME).items()
    assert shown == pytest.approx(kept)
    assert times == 1


def test_memory_is_bounded_and_every_value_counts() -> None:
    metrics = Metrics()
    for number in range(100_000):
        metrics.add(TIME, 1.0001**number)  # 1 to 22,000
    kept = values(metrics.take(), TIME)
    assert sum(kept.values()) == 100_000
    assert len(kept) < 1000 + 5 * 90
    assert max(kept) == pytest.approx(1.0001**99_999, rel=0.05)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_number_is_refused_and_told(kind: Kind, value: float) -> None:
    metrics = Metrics()
    metrics.add(Metric("Any", Unit.NONE, kind), value)
    assert metrics.take() == []
    assert (metrics.take_refused(), metrics.take_refused()) == (1, 0)


def test_a_dimension_with_too_many_values_is_not_paid_for() -> None:
    metrics = Metrics()
    for number in range(150):
        metrics.add(DONE.by(Task=str(number)))
    metrics.add(DONE.by(Task="0"))
    assert len(metrics.take()) == 100
    assert metrics.take_refused() == 50


@pytest.mark.parametrize("name", ["", " ", "x" * 256, "Zeit für alles", "two\nlines", "nul\0"])
def test_a_bad_name_is_refused_where_it_is_written(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Metric(name, Unit.COUNT, Kind.SUM)
    with pytest.raises(ValueError, match="no name"):
        DONE.by(**{name: "x"})


@pytest.mark.parametrize("value", ["", "  ", "x" * 1025, "é"])
def test_a_bad_dimension_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        DONE.by(Cause=value)
    with pytest.raises(ValueError, match="colon"):
        DONE.by(**{":Cause": "x"})


def test_collecting_nothing_collects_nothing() -> None:
    metrics = NoMetrics()
    metrics.add(DONE)
    metrics.add(TIME, math.nan)
    assert metrics.take() == []
    assert metrics.take_refused() == 0


def test_batches_hold_what_one_call_takes_and_lose_nothing() -> None:
    series = [Series(TIME.by(N=str(n)), {float(v): 1 for v in range(1500)}) for n in range(10)]
    cut = list(batches(series))
    assert [one for batch in cut for one in batch] == series
    assert [len(batch) for batch in cut] == [3, 3, 3, 1]
    assert list(batches([])) == []
    large = Series(TIME, {float(v): 1 for v in range(6000)})
    assert list(batches([series[0], large, series[1]])) == [[series[0]], [large], [series[1]]]


def test_chunks() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []


@pytest.mark.parametrize(
    ("name", "is_one"), [("gpu-on-demand", True), ("a.b_c#1", True), ("AWS/SQS", False), ("", False)]
)
def test_namespaces(name: str, is_one: bool) -> None:
    assert bool(re.match(NAMESPACE_PATTERN, name)) is is_one
