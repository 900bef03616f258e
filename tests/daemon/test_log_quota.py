from __future__ import annotations

from lib.daemon.log_quota import LogQuota

PERIOD_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def quota_of(most: int) -> tuple[LogQuota[str], Clock]:
    clock = Clock()
    return LogQuota[str](most=most, period_s=PERIOD_S, clock=clock), clock


def test_each_thing_is_said_so_often_in_a_period() -> None:
    quota, clock = quota_of(2)
    assert [quota.admit("a") for _ in range(3)] == [True, True, False]
    assert quota.admit("b")
    clock.now += PERIOD_S
    assert quota.admit("a")


def test_what_was_left_out_is_told_once_and_after_its_period() -> None:
    quota, clock = quota_of(1)
    for _ in range(4):
        quota.admit("a")
    assert quota.left_out() == {}
    clock.now += PERIOD_S
    assert quota.left_out() == {"a": 3}
    assert quota.left_out() == {}


def test_a_new_period_does_not_forget_the_one_before() -> None:
    quota, clock = quota_of(1)
    for _ in range(3):
        quota.admit("a")
    clock.now += PERIOD_S
    quota.admit("a")
    assert quota.left_out() == {"a": 2}


def test_the_last_words_are_not_waited_for() -> None:
    quota, _ = quota_of(1)
    for _ in range(3):
        quota.admit("a")
    assert quota.left_out(is_last=True) == {"a": 2}


def test_things_that_were_said_once_are_forgotten() -> None:
    quota, clock = quota_of(1)
    for number in range(1000):
        quota.admit(str(number))
    clock.now += PERIOD_S
    quota.left_out()
    assert quota._periods == {}
