"""Since when an instance stops."""

from typing import Any

import pytest

from services.shutdown.hanging import StopWatch

NOW = 1_767_261_600.0  # 2026-01-01 10:00:00
TOLD_AT = NOW - 700


def instance(reason: str | None = None, state: str = "stopping") -> Any:
    described = {"State": {"Name": state}}
    return described if reason is None else {**described, "StateTransitionReason": reason}


def since(reason: str | None, *, launched_at: float = NOW - 7200) -> float | None:
    return StopWatch().since(instance(reason), now=NOW, launched_at=launched_at)


@pytest.mark.parametrize("zone", ["GMT", "UTC"])
def test_ec2_tells_when_a_person_or_a_program_ordered_the_stop(zone: str) -> None:
    assert since(f"User initiated (2026-01-01 09:48:20 {zone})") == TOLD_AT


@pytest.mark.parametrize(
    "reason",
    [
        None,
        "",
        "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
        "User initiated (2026-13-01 09:48:20 GMT)",
        "User initiated (2026-01-01 10:48:20 GMT)",  # to come
        "User initiated (2025-12-31 09:48:20 GMT)",  # before the launch: of another stop
    ],
)
def test_otherwise_it_counts_from_the_first_sight(reason: str | None) -> None:
    watch = StopWatch()
    assert watch.since(instance(reason), now=NOW, launched_at=NOW - 7200) == NOW
    assert watch.since(instance(reason), now=NOW + 60, launched_at=NOW - 7200) == NOW


def test_what_was_forced_gets_as_much_time_again_and_the_next_stop_begins_anew() -> None:
    watch = StopWatch()
    told = instance("User initiated (2026-01-01 09:48:20 GMT)")
    assert watch.since(told, now=NOW, launched_at=0.0) == TOLD_AT
    watch.forced(NOW)
    assert watch.since(told, now=NOW + 60, launched_at=0.0) == NOW
    assert watch.since(instance(state="stopped"), now=NOW + 120, launched_at=0.0) is None
    assert watch.since(told, now=NOW + 180, launched_at=0.0) == TOLD_AT
