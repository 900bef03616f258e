import pytest

from services.devstack.billing import billed_s, cost_usd, running_s
from services.devstack.power import Interval, State

HISTORY = (
    Interval(State.STOPPED, 0, 100),
    Interval(State.PENDING, 100, 130),
    Interval(State.RUNNING, 130, 150),
    Interval(State.STOPPING, 150, 200),
    Interval(State.STOPPED, 200, 1000),
    Interval(State.PENDING, 1000, 1030),
    Interval(State.RUNNING, 1030),
)


def test_only_running_counts_and_what_still_runs_counts_until_now() -> None:
    assert running_s(HISTORY, now_s=1530) == 20 + 500


def test_each_start_is_billed_for_a_minute_at_least() -> None:
    assert billed_s(HISTORY, now_s=1530) == 60 + 500


def test_an_instance_that_never_ran_costs_nothing() -> None:
    assert billed_s(HISTORY[:2], now_s=500) == 0


def test_an_hour_costs_the_price_of_an_hour() -> None:
    assert cost_usd(3600) == pytest.approx(2.24208)
