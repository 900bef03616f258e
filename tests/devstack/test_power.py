from collections.abc import Callable

import pytest

from services.devstack.power import IncorrectInstanceStateError, Interval, Power, State, Transition

PENDING_S = 10.0
POWER_CUT_S = 100.0


def power_in(state: State) -> Power:
    """An instance that entered `state` at 0."""
    return Power(pending_s=PENDING_S, power_cut_s=POWER_CUT_S, state=state, since_s=0.0)


@pytest.mark.parametrize(
    ("state", "verb", "current"),
    [
        (State.STOPPED, Power.start, State.PENDING),
        (State.PENDING, Power.start, State.PENDING),
        (State.RUNNING, Power.start, State.RUNNING),
        (State.RUNNING, Power.stop, State.STOPPING),
        (State.STOPPING, Power.stop, State.STOPPING),
        (State.STOPPED, Power.stop, State.STOPPED),
    ],
)
def test_start_and_stop_are_idempotent_in_their_target_state(
    state: State, verb: Callable[[Power, float], Transition], current: State
) -> None:
    power = power_in(state)
    assert verb(power, 1.0) == Transition(state, current)
    assert verb(power, 1.0) == Transition(current, current)


@pytest.mark.parametrize(
    ("state", "verb"),
    [
        (State.STOPPING, Power.start),
        (State.TERMINATED, Power.start),
        (State.PENDING, Power.stop),
        (State.TERMINATED, Power.stop),
    ],
)
def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(
    state: State, verb: Callable[[Power, float], Transition]
) -> None:
    power = power_in(state)
    with pytest.raises(IncorrectInstanceStateError):
        verb(power, 1.0)
    assert (power.state, power.version) == (state, 0)


@pytest.mark.parametrize(
    ("state", "now_s", "later"),
    [
        (State.PENDING, PENDING_S - 1, State.PENDING),
        (State.PENDING, PENDING_S, State.RUNNING),
        (State.STOPPING, POWER_CUT_S - 1, State.STOPPING),
        (State.STOPPING, POWER_CUT_S, State.STOPPED),
        (State.RUNNING, 1e9, State.RUNNING),
        (State.STOPPED, 1e9, State.STOPPED),
        (State.TERMINATED, 1e9, State.TERMINATED),
    ],
)
def test_time_alone_brings_the_next_state(state: State, now_s: float, later: State) -> None:
    power = power_in(state)
    power.settle(now_s)
    assert power.state is later


def test_a_change_is_dated_when_it_was_due_not_when_it_was_seen() -> None:
    power = power_in(State.PENDING)
    power.settle(1000.0)
    assert power.history == (Interval(State.PENDING, 0.0, PENDING_S), Interval(State.RUNNING, PENDING_S))


@pytest.mark.parametrize(
    ("state", "halted"),
    [(State.STOPPING, State.STOPPED), (State.RUNNING, State.RUNNING), (State.PENDING, State.PENDING)],
)
def test_only_a_stopping_machine_halts(state: State, halted: State) -> None:
    power = power_in(state)
    power.halt(1.0)
    assert power.state is halted


@pytest.mark.parametrize(
    ("state", "forced"),
    [(State.RUNNING, State.STOPPING), (State.STOPPING, State.STOPPED), (State.STOPPED, State.STOPPED)],
)
def test_force_ends_a_stop_that_hangs(state: State, forced: State) -> None:
    power = power_in(state)
    assert power.stop(5.0, force=True) == Transition(state, forced)


def test_the_begin_of_a_stop_is_known_until_the_next_start() -> None:
    power = power_in(State.RUNNING)
    power.stop(5.0)
    assert power.stopped_at_s == 5.0
    power.halt(7.0)
    assert power.stopped_at_s == 5.0
    power.start(9.0)
    assert power.stopped_at_s is None


def test_a_stop_that_comes_when_the_start_is_due_is_accepted() -> None:
    power = power_in(State.PENDING)
    assert power.stop(PENDING_S) == Transition(State.RUNNING, State.STOPPING)


def test_an_instance_laid_to_rest_has_no_past_but_a_new_version() -> None:
    power = power_in(State.RUNNING)
    power.lay_to_rest(5.0)
    assert power.history == (Interval(State.STOPPED, 5.0),)
    assert power.version == 1
