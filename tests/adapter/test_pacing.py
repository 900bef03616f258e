"""When the next look at a job comes, and what of the looks is logged."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from services.adapter.mishaps import Mishaps
from services.adapter.pacing import Durations, pause_s, span


def ends(duration_s: float, usual_s: float | None) -> tuple[int, float]:
    """How many looks a job takes, and how long after its end the last one comes."""
    now, looks = 0.0, 1
    while now < duration_s:
        now += pause_s(now, usual_s=usual_s, ceiling_s=1.0)
        looks += 1
    return looks, now - duration_s


@pytest.mark.parametrize("duration_s", [0.5, 2.0, 2.03, 5.0, 10.0, 60.0])
def test_a_job_that_takes_the_usual_time_is_found_soon_after_its_end(duration_s: float) -> None:
    looks, gap_s = ends(duration_s, usual_s=duration_s)
    assert gap_s <= max(0.05, duration_s / 40) + 1e-9
    assert looks <= duration_s + 5


@pytest.mark.parametrize("usual_s", [None, 0.01, 2.0, 30.0])
@pytest.mark.parametrize("elapsed_s", [0.0, 1.0, 1.95, 2.0, 1000.0])
def test_no_pause_is_longer_than_the_setting(elapsed_s: float, usual_s: float | None) -> None:
    assert 0 < pause_s(elapsed_s, usual_s=usual_s, ceiling_s=1.0) <= 1.0
    assert pause_s(elapsed_s, usual_s=usual_s, ceiling_s=0.01) == 0.01


def test_one_odd_job_does_not_change_what_is_usual() -> None:
    durations = Durations()
    assert durations.usual_s is None
    for duration_s in (2.0, 2.0, 600.0):
        durations.note(duration_s)
    assert durations.usual_s == 2.0


def test_a_deadline_is_told_in_sensible_units() -> None:
    assert (span(12.5), span(1500.0)) == ("12.5 s", "25 min")


def test_failed_looks_are_a_line_for_each_change_and_a_summary() -> None:
    mishaps = Mishaps(failed="upstream.look_failed", recovered="upstream.looks_recovered")
    with capture_logs() as lines:
        for error in ("broke", "broke", "silent", "silent", "silent"):
            mishaps.note(error)
        mishaps.end()
        mishaps.end()
    assert [line["event"] for line in lines] == ["upstream.look_failed"] * 2 + ["upstream.looks_recovered"]
    assert lines[-1]["failed"] == 5
