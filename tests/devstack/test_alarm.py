"""CloudWatch's rules, minute by minute, on a virtual clock."""

from collections.abc import Callable, Sequence

import pytest

from services.devstack.alarm import (
    Alarm,
    AlarmDefinition,
    AlarmState,
    PeriodFacts,
    Transition,
    judge,
    visible_only,
    work_while_running,
)

MINUTE_S = 60
ORIGINAL = AlarmDefinition(expression=visible_only)
OURS = AlarmDefinition()

Minute = tuple[int, int]
"""Messages visible at the end of a minute, messages sent in it."""


@pytest.mark.parametrize(
    ("datapoints", "state"),
    [
        ([0, 0, 0, 0, 0, 0], AlarmState.ALARM),
        ([0, 0, 0, 0, 0, 1], AlarmState.OK),
        ([1, 0, 0, 0, 0, 0], AlarmState.OK),
        ([0, 0, 0, 0, 0, 0.2], AlarmState.OK),
        ([None, 0, 0, 0, 0, 0], AlarmState.OK),
        ([None] * 6, AlarmState.OK),
    ],
)
def test_six_of_six_periods_must_be_empty_and_missing_ones_are_not(
    datapoints: Sequence[float | None], state: AlarmState
) -> None:
    assert judge(datapoints, OURS) is state


@pytest.mark.parametrize(
    ("facts", "value"),
    [
        (PeriodFacts(0.0, 0, 2.0), 0.0),
        (PeriodFacts(0.0, 3, 2.0), 3.0),
        (PeriodFacts(0.2, 0, 2.0), 0.2),
        (PeriodFacts(None, 2, 2.0), 2.0),
        (PeriodFacts(1.0, None, 2.0), 1.0),
        (PeriodFacts(None, None, 2.0), None),
        (PeriodFacts(0.0, 0, None), None),
    ],
)
def test_a_sum_takes_what_is_missing_for_zero_and_a_stopped_instance_has_no_point(
    facts: PeriodFacts, value: float | None
) -> None:
    assert work_while_running(facts) == value


def test_an_idle_queue_alarms_after_thirty_minutes_and_only_once() -> None:
    transitions = _run(OURS, lambda _minute: (0, 0), minutes=120)
    assert [(minute, transition.current) for minute, transition in transitions] == [
        (1, AlarmState.OK),
        (30, AlarmState.ALARM),
    ]


def test_work_ends_the_alarm_and_silence_raises_it_again() -> None:
    transitions = _run(OURS, lambda minute: (0, 1 if minute == 62 else 0), minutes=120)
    assert [(minute, transition.current) for minute, transition in transitions[1:]] == [
        (30, AlarmState.ALARM),
        (65, AlarmState.OK),
        (95, AlarmState.ALARM),
    ]


def test_a_queue_that_is_busy_but_never_sampled_with_a_message_looks_empty_to_the_original_alarm() -> None:
    def one_job_every_two_minutes_taken_at_once(minute: int) -> Minute:
        return 0, minute % 2

    original = _run(ORIGINAL, one_job_every_two_minutes_taken_at_once, minutes=60)
    ours = _run(OURS, one_job_every_two_minutes_taken_at_once, minutes=60)

    assert (30, AlarmState.ALARM) in [(minute, transition.current) for minute, transition in original]
    assert AlarmState.ALARM not in [transition.current for _, transition in ours]


@pytest.mark.parametrize("definition", [ORIGINAL, OURS])
def test_rule_b_a_stuck_task_in_flight_does_not_keep_the_alarm_away(definition: AlarmDefinition) -> None:
    def sent_once_then_in_flight_for_ever(minute: int) -> Minute:
        return 0, 1 if minute == 1 else 0

    transitions = _run(definition, sent_once_then_in_flight_for_ever, minutes=60)
    assert transitions[-1][1].current is AlarmState.ALARM


def test_a_waiting_message_keeps_the_alarm_away() -> None:
    transitions = _run(OURS, lambda _minute: (1, 0), minutes=120)
    assert [transition.current for _, transition in transitions] == [AlarmState.OK]


def test_a_job_every_29_minutes_keeps_the_alarm_away() -> None:
    transitions = _run(OURS, lambda minute: (0, 1 if minute % 29 == 1 else 0), minutes=600)
    assert AlarmState.ALARM not in [transition.current for _, transition in transitions]


def test_a_job_every_36_minutes_lets_it_alarm_each_time() -> None:
    transitions = _run(OURS, lambda minute: (0, 1 if minute % 36 == 1 else 0), minutes=360)
    assert [transition.current for _, transition in transitions].count(AlarmState.ALARM) >= 9


def test_points_published_late_delay_the_alarm_by_as_much() -> None:
    lagging = AlarmDefinition(publishing_lag_s=120)
    transitions = _run(lagging, lambda _minute: (0, 0), minutes=60)
    assert [minute for minute, transition in transitions if transition.current is AlarmState.ALARM] == [32]


def test_a_queue_without_points_never_alarms() -> None:
    alarm = Alarm(OURS)
    assert [alarm.look(minute * MINUTE_S) for minute in range(1, 100)].count(None) == 98
    assert alarm.state is AlarmState.OK


def test_the_transition_tells_the_datapoints_it_came_from() -> None:
    transitions = _run(OURS, lambda minute: (0, 4 if minute == 1 else 0), minutes=34)
    assert transitions[0][1] == Transition(AlarmState.INSUFFICIENT_DATA, AlarmState.OK, (None,) * 6)
    last = _run(OURS, lambda minute: (0, 4 if minute == 1 else 0), minutes=35)[-1][1]
    assert last == Transition(AlarmState.OK, AlarmState.ALARM, (0.0,) * 6)


def _run(
    definition: AlarmDefinition, measured_in: Callable[[int], Minute], *, minutes: int
) -> list[tuple[int, Transition]]:
    """Publish a point and look once a minute; the transitions and their minutes."""
    alarm = Alarm(definition)
    transitions = []
    for minute in range(1, minutes + 1):
        visible, sent = measured_in(minute)
        alarm.metrics.publish((minute - 1) * MINUTE_S, visible=visible, sent=sent, cpu=2.0)
        transition = alarm.look(minute * MINUTE_S)
        if transition is not None:
            transitions.append((minute, transition))
    return transitions
