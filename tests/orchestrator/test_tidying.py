from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.gputask.record import Status, TaskRecord
from services.orchestrator.tidying import Burial, Limits, Verdict, covers, decide, decide_letter, surplus

NOW = 1_800_000_000.0
LIMITS = Limits(resend_after_s=600, max_age_s=86_400)

TASK = TaskRecord(
    task_id="t",
    status=Status.PENDING,
    job_type="/api/v1/camera-angle/jobs",
    created_at=NOW - 1000,
    updated_at=NOW,
    queued_at=NOW,
    sends=1,
)

_times = st.floats(min_value=NOW - 200_000, max_value=NOW + 1000)
_tasks = st.builds(
    TaskRecord,
    task_id=st.just("t"),
    status=st.sampled_from(Status),
    job_type=st.just("/api/v1/camera-angle/jobs"),
    created_at=_times,
    updated_at=_times,
    queued_at=_times,
    sends=st.integers(min_value=0, max_value=10_000),
    lease_until=st.none() | _times | st.floats(min_value=NOW - 1, max_value=NOW + 1000),
)
_limits = st.builds(
    Limits,
    resend_after_s=st.floats(min_value=0.1, max_value=10_000),
    max_age_s=st.floats(min_value=0.1, max_value=200_000),
)


@pytest.mark.parametrize(
    ("sends", "waited_s", "verdict"),
    [
        (1, 599, Verdict.KEEP),
        (1, 600, Verdict.RESEND),
        (2, 1199, Verdict.KEEP),
        (2, 1200, Verdict.RESEND),
        (3, 2399, Verdict.KEEP),
        (3, 2400, Verdict.RESEND),
        (0, 600, Verdict.RESEND),
    ],
)
def test_each_send_is_waited_for_twice_as_long(sends: int, waited_s: float, verdict: Verdict) -> None:
    assert (
        decide(replace(TASK, sends=sends, queued_at=NOW - waited_s), now=NOW, limits=LIMITS, is_covered=False)
        is verdict
    )


@pytest.mark.parametrize(
    ("status", "lease_until", "queued_at", "verdict"),
    [
        pytest.param(Status.PROCESSING, NOW + 1, NOW - 9000, Verdict.KEEP, id="leased"),
        pytest.param(Status.PROCESSING, NOW - 599, NOW - 9000, Verdict.KEEP, id="left by its worker just now"),
        pytest.param(Status.PROCESSING, NOW - 600, NOW - 9000, Verdict.RESEND, id="left by its worker for long"),
        pytest.param(Status.PROCESSING, NOW - 9000, NOW - 599, Verdict.KEEP, id="sent again after its worker died"),
        pytest.param(Status.COMPLETED, None, NOW - 9000, Verdict.KEEP, id="completed"),
        pytest.param(Status.FAILED, None, NOW - 9000, Verdict.KEEP, id="failed"),
    ],
)
def test_waiting_counts_from_when_a_worker_could_have_taken_it(
    status: Status, lease_until: float | None, queued_at: float, verdict: Verdict
) -> None:
    task = replace(TASK, status=status, lease_until=lease_until, queued_at=queued_at)
    assert decide(task, now=NOW, limits=LIMITS, is_covered=False) is verdict


@pytest.mark.parametrize(
    ("sends", "waited_s", "verdict"),
    [
        (1, 600, Verdict.KEEP),
        (1, 21_599, Verdict.KEEP),
        (1, 21_600, Verdict.RESEND),
        (2, 21_600, Verdict.RESEND),
        (9, 21_600, Verdict.KEEP),
    ],
)
def test_a_task_whose_message_seems_to_be_there_waits_for_its_turn(
    sends: int, waited_s: float, verdict: Verdict
) -> None:
    task = replace(TASK, sends=sends, queued_at=NOW - waited_s, created_at=NOW - waited_s)
    assert decide(task, now=NOW, limits=LIMITS, is_covered=True) is verdict


@pytest.mark.parametrize(
    ("messages", "seen", "is_whole", "covered"),
    [(0, 0, True, True), (5, 5, True, True), (4, 5, True, False), (90, 100, False, True), (89, 100, False, False)],
)
def test_a_queue_covers_the_tasks_it_has_as_many_messages_as(
    messages: int, seen: int, is_whole: bool, covered: bool
) -> None:
    assert covers(messages=messages, seen=seen, is_whole=is_whole) is covered


@pytest.mark.parametrize(("messages", "live", "over"), [(5, 5, 0), (99, 0, 0), (100, 0, 100), (100, 1, 0), (3, 900, 0)])
def test_a_few_obsolete_messages_are_left_to_a_worker(messages: int, live: int, over: int) -> None:
    assert surplus(messages=messages, live=live) == over


def test_a_leased_task_is_its_workers_however_old() -> None:
    task = replace(TASK, status=Status.PROCESSING, lease_until=NOW + 1, created_at=NOW - 999_999)
    assert decide(task, now=NOW, limits=LIMITS, is_covered=False) is Verdict.KEEP


@pytest.mark.parametrize(("age_s", "verdict"), [(86_399, Verdict.KEEP), (86_400, Verdict.EXPIRE)])
def test_a_task_nobody_could_finish_expires_by_age(age_s: float, verdict: Verdict) -> None:
    assert decide(replace(TASK, created_at=NOW - age_s), now=NOW, limits=LIMITS, is_covered=False) is verdict


@given(_tasks, _limits, st.booleans())
def test_a_leased_or_terminal_task_is_always_kept(task: TaskRecord, limits: Limits, is_covered: bool) -> None:
    if task.status.is_terminal or task.is_leased(NOW):
        assert decide(task, now=NOW, limits=limits, is_covered=is_covered) is Verdict.KEEP


@given(_tasks, _limits, st.booleans())
def test_age_goes_before_everything_else_where_nobody_holds_the_task(
    task: TaskRecord, limits: Limits, is_covered: bool
) -> None:
    if not task.status.is_terminal and not task.is_leased(NOW):
        is_old = abs(NOW - task.created_at) >= limits.max_age_s
        assert (decide(task, now=NOW, limits=limits, is_covered=is_covered) is Verdict.EXPIRE) == is_old


@given(_tasks, _limits, st.booleans())
def test_a_task_that_was_just_sent_is_not_sent_again(task: TaskRecord, limits: Limits, is_covered: bool) -> None:
    assert decide(replace(task, queued_at=NOW), now=NOW, limits=limits, is_covered=is_covered) is not Verdict.RESEND


@given(_tasks, _limits, st.booleans())
def test_no_task_is_kept_for_ever(task: TaskRecord, limits: Limits, is_covered: bool) -> None:
    if not task.status.is_terminal:
        much_later = NOW + 1_000_000
        assert decide(task, now=much_later, limits=limits, is_covered=is_covered) is Verdict.EXPIRE


@pytest.mark.parametrize(
    ("task", "is_runnable", "burial"),
    [
        pytest.param(None, True, Burial.KEEP, id="unknown"),
        pytest.param(None, False, Burial.NOTHING_LEFT, id="unknown poison"),
        pytest.param(replace(TASK, status=Status.COMPLETED), True, Burial.NOTHING_LEFT, id="completed"),
        pytest.param(replace(TASK, status=Status.PROCESSING, lease_until=NOW + 1), True, Burial.WAIT, id="held"),
        pytest.param(replace(TASK, sends=99), True, Burial.RESEND, id="never claimed"),
        pytest.param(replace(TASK, attempt=1, comfy_job_id="c-1"), True, Burial.RESEND, id="released"),
        pytest.param(
            replace(TASK, status=Status.PROCESSING, attempt=1, lease_until=NOW), True, Burial.RESEND, id="left behind"
        ),
        pytest.param(replace(TASK, attempt=1, sends=10), True, Burial.FAIL, id="dead again and again"),
        pytest.param(TASK, False, Burial.FAIL, id="poison"),
    ],
)
def test_a_dead_letter_fails_only_what_cannot_run(task: TaskRecord | None, is_runnable: bool, burial: Burial) -> None:
    assert decide_letter(task, is_runnable=is_runnable, now=NOW) is burial


def test_a_task_created_in_another_unit_of_time_gets_an_end_as_well() -> None:
    assert decide(replace(TASK, created_at=NOW * 1000), now=NOW, limits=LIMITS, is_covered=False) is Verdict.EXPIRE
