"""The edges of a task's life, as tables and as properties, without a database and with one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.asyncaws.conditions import Change
from lib.asyncaws.errors import ConditionFailed
from lib.asyncaws.session import BACKGROUND, AwsSession
from lib.asyncaws.table import Table
from lib.gputask import transitions
from lib.gputask.record import LONGEST_LEASE_S, MOST_SPARED, ErrorCode, Status, TaskRecord
from tests.gputask.records import NOW, RECORDS, record_of

LEASE_UNTIL = NOW + 300
MAX_ATTEMPTS = 3

ATTEMPT = 2
WORKED_ON: dict[str, Any] = {
    "attempt": ATTEMPT,
    "worker": "i-1",
    "claimed_at": NOW - 50,
    "comfy_job_id": "c-1",
}
SITUATIONS = {
    "new": record_of(),
    "released": record_of(attempt=ATTEMPT, comfy_job_id="c-1"),
    "out of attempts": record_of(attempt=MAX_ATTEMPTS),
    "leased": record_of(status=Status.PROCESSING, lease_until=NOW + 0.001, **WORKED_ON),
    "lease runs out now": record_of(status=Status.PROCESSING, lease_until=NOW, **WORKED_ON),
    "abandoned": record_of(status=Status.PROCESSING, lease_until=NOW - 100, **WORKED_ON),
    "without a lease": record_of(status=Status.PROCESSING, **WORKED_ON),
    "completed": record_of(status=Status.COMPLETED, result_s3_uri="s3://b/k", finished_at=NOW - 1, **WORKED_ON),
    "failed": record_of(status=Status.FAILED, error_code="deadline", finished_at=NOW - 1, **WORKED_ON),
    "failed, never claimed": record_of(status=Status.FAILED, error_code="expired", finished_at=NOW - 1),
}

CLAIM = transitions.claim(worker="i-2", now=NOW, lease_until=LEASE_UNTIL, max_attempts=MAX_ATTEMPTS)
HOLDERS_VERBS = {
    "hold": transitions.hold(attempt=ATTEMPT, now=NOW, lease_until=LEASE_UNTIL),
    "note upstream job": transitions.note_upstream_job(attempt=ATTEMPT, now=NOW, comfy_job_id="c-2"),
    "finish": transitions.finish(attempt=ATTEMPT, now=NOW, result_s3_uri="s3://b/new"),
    "fail": transitions.fail(attempt=ATTEMPT, now=NOW, code=ErrorCode.UPSTREAM_FAILED, message="no"),
    "release": transitions.release(attempt=ATTEMPT, now=NOW, keep_upstream_job=True),
}
GIVE_UP = transitions.give_up(now=NOW, code=ErrorCode.WORKER_LOST, message="gone")
UNHELD = {"new", "released", "out of attempts", "lease runs out now", "abandoned", "without a lease"}
HELD = {"leased", "lease runs out now", "abandoned", "without a lease"}


def situations_changed_by(change: Change) -> set[str]:
    return {name for name, record in SITUATIONS.items() if change.applied_to(record.to_item()) is not None}


def after(change: Change, situation: str) -> dict[str, Any]:
    """What is different afterwards; None stands for an attribute that is gone."""
    before = SITUATIONS[situation].to_item()
    changed = change.applied_to(before)
    assert changed is not None
    names = {*before, *changed}
    return {name: changed.get(name) for name in names if before.get(name) != changed.get(name)}


def test_a_claim_takes_what_waits_or_was_left_and_has_attempts() -> None:
    assert situations_changed_by(CLAIM) == UNHELD - {"out of attempts"}


@pytest.mark.parametrize("verb", HOLDERS_VERBS)
def test_a_holders_verb_needs_its_attempt_and_a_task_in_work(verb: str) -> None:
    """Also after the lease ran out, as long as nobody else has claimed: the attempt is the fence, not the time."""
    assert situations_changed_by(HOLDERS_VERBS[verb]) == HELD


@pytest.mark.parametrize("verb", HOLDERS_VERBS)
@pytest.mark.parametrize("attempt", [ATTEMPT - 1, ATTEMPT + 1])
def test_a_holders_verb_of_another_attempt_changes_nothing(verb: str, attempt: int) -> None:
    item = SITUATIONS["leased"].to_item() | {"attempt": attempt}
    assert HOLDERS_VERBS[verb].applied_to(item) is None


def test_a_resend_is_for_what_no_worker_holds() -> None:
    assert situations_changed_by(transitions.resend(record_of(), now=NOW)) == UNHELD


def test_a_resend_of_what_was_queued_again_since_changes_nothing() -> None:
    read_earlier = record_of(queued_at=NOW - 600)
    assert situations_changed_by(transitions.resend(read_earlier, now=NOW)) == set()


def test_a_resend_of_what_was_sent_again_within_the_millisecond_changes_nothing() -> None:
    sent_again = record_of(sends=2).to_item()
    assert transitions.resend(record_of(sends=1), now=NOW).applied_to(sent_again) is None


def test_giving_up_is_for_what_no_worker_holds() -> None:
    assert situations_changed_by(GIVE_UP) == UNHELD


def test_a_claim_gives_a_new_attempt_and_a_lease() -> None:
    assert after(CLAIM, "new") == {
        "status": "processing",
        "worker": "i-2",
        "claimed_at": NOW,
        "lease_until": LEASE_UNTIL,
        "attempt": 1,
    }


def test_a_claim_of_what_was_left_keeps_the_run_upstream_for_adoption() -> None:
    assert after(CLAIM, "abandoned") == {
        "worker": "i-2",
        "claimed_at": NOW,
        "lease_until": LEASE_UNTIL,
        "attempt": ATTEMPT + 1,
    }


def test_holding_renews_the_lease_and_nothing_else() -> None:
    assert after(HOLDERS_VERBS["hold"], "leased") == {"lease_until": LEASE_UNTIL}


def test_noting_the_upstream_job_writes_its_id() -> None:
    assert after(HOLDERS_VERBS["note upstream job"], "leased") == {"comfy_job_id": "c-2"}


def test_finishing_writes_the_result_and_ends_the_lease() -> None:
    assert after(HOLDERS_VERBS["finish"], "leased") == {
        "status": "completed",
        "result_s3_uri": "s3://b/new",
        "finished_at": NOW,
        "lease_until": None,
    }


def test_failing_writes_the_cause_and_ends_the_lease() -> None:
    assert after(HOLDERS_VERBS["fail"], "leased") == {
        "status": "failed",
        "error_code": "upstream_failed",
        "error_message": "no",
        "finished_at": NOW,
        "lease_until": None,
    }


def test_giving_up_writes_the_cause() -> None:
    assert after(GIVE_UP, "new") == {
        "status": "failed",
        "error_code": "worker_lost",
        "error_message": "gone",
        "finished_at": NOW,
    }


@pytest.mark.parametrize(("keep", "forgotten"), [(True, {}), (False, {"comfy_job_id": None})])
def test_a_release_lets_anybody_take_the_task(keep: bool, forgotten: dict[str, None]) -> None:
    release = transitions.release(attempt=ATTEMPT, now=NOW + 1, keep_upstream_job=keep)
    assert after(release, "leased") == {
        "status": "pending",
        "queued_at": NOW + 1,
        "updated_at": NOW + 1,
        "lease_until": None,
        "worker": None,
        **forgotten,
    }


@pytest.mark.parametrize("spared", range(MOST_SPARED + 3))
@pytest.mark.parametrize("attempt", range(MAX_ATTEMPTS + MOST_SPARED + 2))
def test_a_claim_without_a_job_is_no_attempt_and_the_two_readers_agree(attempt: int, spared: int) -> None:
    record = record_of(attempt=attempt, spared=spared)
    claimed = CLAIM.applied_to(record.to_item())
    assert (claimed is not None) is (record.attempts_used < MAX_ATTEMPTS)
    assert claimed is None or claimed["attempt"] == attempt + 1  # never a number that was given before


def test_a_release_can_spare_the_attempt() -> None:
    release = transitions.release(attempt=ATTEMPT, now=NOW + 1, keep_upstream_job=True, spared=2)
    assert after(release, "leased")["spared"] == 2


def test_a_resend_is_counted_and_dated() -> None:
    assert after(transitions.resend(record_of(), now=NOW + 1), "new") == {
        "queued_at": NOW + 1,
        "updated_at": NOW + 1,
        "sends": 2,
    }


@pytest.mark.parametrize(
    ("item", "free"),
    [
        ({}, True),
        (record_of(expires_at=NOW - 1).to_item(), True),
        (record_of(expires_at=NOW).to_item(), True),
        (record_of(expires_at=NOW + 1).to_item(), False),
        (record_of(expires_at=None).to_item(), False),
        (record_of(status=Status.COMPLETED).to_item(), False),
    ],
)
def test_an_id_is_free_without_a_task_or_with_one_that_has_expired(item: dict[str, Any], free: bool) -> None:
    assert transitions.creatable(NOW).holds(item) is free


@pytest.mark.parametrize(
    ("touched", "withdrawable"),
    [
        ({}, True),
        ({"status": Status.PROCESSING, "attempt": 1}, False),
        ({"attempt": 1}, False),
        ({"status": Status.FAILED}, False),
        ({"sends": 2}, False),
        ({"created_at": NOW + 1}, False),
    ],
)
def test_only_what_nobody_touched_is_withdrawn(touched: dict[str, Any], withdrawable: bool) -> None:
    change = transitions.withdraw(record_of(), now=NOW)
    assert (change.applied_to(record_of(**touched).to_item()) is not None) is withdrawable


@st.composite
def verbs(draw: st.DrawFn, record: TaskRecord) -> Change:
    """Any verb, more often than not by somebody who knows the record."""
    attempt = draw(st.just(record.attempt) | st.integers(0, 4))
    known = draw(st.just(record) | RECORDS)
    code, message = draw(st.sampled_from(ErrorCode)), "no"
    change: Change = draw(
        st.sampled_from(
            [
                transitions.claim(worker="i-2", now=NOW, lease_until=LEASE_UNTIL, max_attempts=attempt + 1),
                transitions.hold(attempt=attempt, now=NOW, lease_until=LEASE_UNTIL),
                transitions.note_upstream_job(attempt=attempt, now=NOW, comfy_job_id="c-9"),
                transitions.finish(attempt=attempt, now=NOW, result_s3_uri="s3://b/9"),
                transitions.fail(attempt=attempt, now=NOW, code=code, message=message),
                transitions.release(attempt=attempt, now=NOW, keep_upstream_job=draw(st.booleans())),
                transitions.resend(known, now=NOW),
                transitions.give_up(now=NOW, code=code, message=message),
            ]
        )
    )
    return change


CASES = RECORDS.flatmap(lambda record: st.tuples(st.just(record), verbs(record)))


@given(CASES)
def test_a_terminal_task_never_changes(case: tuple[TaskRecord, Change]) -> None:
    record, verb = case
    for status in (Status.COMPLETED, Status.FAILED):
        assert verb.applied_to(record.to_item() | {"status": status}) is None


@given(CASES)
def test_a_leased_task_is_changed_by_its_holder_only(case: tuple[TaskRecord, Change]) -> None:
    record, verb = case
    leased = record.to_item() | {"status": Status.PROCESSING, "lease_until": LEASE_UNTIL}
    if verb.applied_to(leased) is not None:
        assert verb.applied_to(leased | {"attempt": record.attempt + 1}) is None


@given(CASES)
def test_an_attempt_is_given_once(case: tuple[TaskRecord, Change]) -> None:
    """Whoever becomes the worker gets an attempt that nobody had: the fence against all who were before."""
    record, verb = case
    changed = verb.applied_to(record.to_item())
    if changed is not None:
        assert changed["attempt"] == record.attempt + ("claimed_at" in verb.assign)


@given(CASES)
def test_every_verb_leaves_a_record_that_can_be_read(case: tuple[TaskRecord, Change]) -> None:
    record, verb = case
    changed = verb.applied_to(record.to_item())
    if changed is not None:
        read = TaskRecord.from_item(changed)
        assert (read.task_id, read.created_at, read.updated_at) == (record.task_id, record.created_at, NOW)
        assert read.request_body == record.request_body


FRESH = st.builds(
    record_of,
    status=st.sampled_from([Status.PENDING, Status.PENDING, Status.PROCESSING]),
    attempt=st.integers(0, 1),
    sends=st.integers(1, 2),
    created_at=st.sampled_from([NOW, NOW + 0.001]),
    expires_at=st.sampled_from([NOW, NOW + 1]),
)


@pytest.fixture
async def table(aws: AwsSession, task_table: str) -> Table:
    return Table(await aws.dynamodb(BACKGROUND), name=task_table, key="task_id", policy=BACKGROUND)


@pytest.fixture
def fresh_key() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"task-{next(numbers)}"


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CASES)
async def test_every_verb_means_the_same_to_dynamodb(
    table: Table, fresh_key: Callable[[], str], case: tuple[TaskRecord, Change]
) -> None:
    record, verb = case
    key = fresh_key()
    before = record.to_item() | {"task_id": key}
    await table.put(before)
    expected = verb.applied_to(before)
    if expected is None:
        with pytest.raises(ConditionFailed) as failure:
            await table.update(key, verb)
        assert failure.value.item == before
    else:
        assert await table.update(key, verb) == expected
    assert await table.get(key) == expected or before


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(existing=st.none() | FRESH | RECORDS, read=FRESH)
async def test_creating_and_withdrawing_mean_the_same_to_dynamodb(
    table: Table, fresh_key: Callable[[], str], existing: TaskRecord | None, read: TaskRecord
) -> None:
    key = fresh_key()
    before = {} if existing is None else existing.to_item() | {"task_id": key}
    if before:
        await table.put(before)

    withdraw = transitions.withdraw(read, now=NOW)
    withdrawn = withdraw.applied_to(before)
    if withdrawn is not None:
        before = await table.update(key, withdraw)
        assert before == withdrawn
    else:
        with pytest.raises(ConditionFailed):
            await table.update(key, withdraw)

    creatable = transitions.creatable(NOW)
    new = record_of(task_id=key).to_item()
    if creatable.holds(before):
        await table.put(new, creatable)
        assert await table.get(key) == new
    else:
        with pytest.raises(ConditionFailed) as failure:
            await table.put(new, creatable)
        assert failure.value.item == before


# What another version or another program may have written in place of each attribute; None: nothing.
ODD_VALUES: tuple[Any, ...] = (None, "", "soon", "12", -1, 0, 1.5, NOW * 1000, True, [], {"a": 1})
OPTIONAL = sorted(set(record_of().to_item()) | set(WORKED_ON) | {"lease_until", "finished_at", "error_code"})


def odd_records() -> list[dict[str, Any]]:
    """Live records of every situation with each optional attribute missing, or of another type, one at a time."""
    lives = [record.to_item() for record in SITUATIONS.values() if not record.status.is_terminal]
    names = [name for name in OPTIONAL if name not in ("task_id", "status")]
    odd = [item | {name: value} for item in lives for name in names for value in ODD_VALUES]
    bare = [{"task_id": "t", "status": status} for status in ("pending", "processing")]
    return bare + [{name: value for name, value in item.items() if value is not None} for item in odd]


def test_whatever_has_a_live_status_gets_an_end() -> None:
    """A lease that is one of ours may hold for as long as ours do, and no longer."""
    later = NOW + LONGEST_LEASE_S + 1
    for item in odd_records():
        assert not TaskRecord.from_item(item).is_leased(later), item
        assert transitions.give_up(now=later, code=ErrorCode.EXPIRED, message="old").applied_to(item), item


def test_whatever_waits_can_be_claimed_until_its_attempts_are_used_up() -> None:
    later = NOW + LONGEST_LEASE_S + 1
    claim = transitions.claim(worker="i-2", now=later, lease_until=later + 300, max_attempts=MAX_ATTEMPTS)
    for item in odd_records():
        ready = transitions.count_attempts_anew(later).applied_to(item) or item
        assert bool(claim.applied_to(ready)) is (TaskRecord.from_item(ready).attempts_used < MAX_ATTEMPTS), item


def test_the_reader_and_the_conditions_agree_on_who_holds_a_task() -> None:
    for item in odd_records():
        assert TaskRecord.from_item(item).is_leased(NOW) is (GIVE_UP.applied_to(item) is None), item


@pytest.mark.parametrize("name", ["queued_at", "sends"])
@pytest.mark.parametrize("value", [None, "", "soon", True, []])
def test_a_task_that_does_not_say_when_or_how_often_it_was_sent_is_sent_again(name: str, value: Any) -> None:
    item = record_of().to_item() | {name: value}
    item = {key: value for key, value in item.items() if value is not None}
    changed = transitions.resend(TaskRecord.from_item(item), now=NOW + 1).applied_to(item)
    assert changed is not None
    assert (changed["queued_at"], changed["sends"]) == (NOW + 1, 1 if name == "sends" else 2)
