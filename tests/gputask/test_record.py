from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given

from lib.asyncaws.attributes import deserialize_item, serialize_item
from lib.gputask.record import LIVE, ErrorCode, Status, TaskRecord
from tests.gputask.records import NOW, RECORDS, record_of


@given(RECORDS)
def test_a_record_comes_back_from_its_item(record: TaskRecord) -> None:
    assert TaskRecord.from_item(deserialize_item(serialize_item(record.to_item()))) == record


@given(RECORDS)
def test_an_item_has_no_attribute_without_a_value(record: TaskRecord) -> None:
    assert None not in record.to_item().values()
    assert set(record.to_item()) <= {field.name for field in fields(TaskRecord)}


def test_an_item_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    item = record_of().to_item() | {"invented_later": 1}
    assert TaskRecord.from_item(item) == record_of()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"status": "failed", "error": "the customer called"}, "the customer called"),
        ({"status": "failed", "error": "the customer called", "error_message": ""}, "the customer called"),
        ({"status": "failed", "error": "the customer called", "error_message": "ours"}, "ours"),
        ({"status": "failed", "error": {"text": "the customer called"}}, None),
        ({"status": "failed", "error": ""}, None),
        # What went wrong with an earlier attempt is no error of a job that goes on.
        ({"status": "processing", "error": "an attempt failed"}, None),
        ({"status": "completed", "error": "an attempt failed"}, None),
    ],
)
def test_a_task_that_was_failed_by_hand_has_the_message_that_it_was_given(
    attributes: dict[str, Any], message: str | None
) -> None:
    assert TaskRecord.from_item(record_of().to_item() | attributes).error_message == message


def test_an_item_of_the_index_is_read_without_what_it_does_not_project() -> None:
    item: dict[str, Any] = {
        "task_id": "t",
        "status": "processing",
        "job_type": "/x",
        "created_at": 1,
        "updated_at": 2,
        "attempt": 1,
    }
    record = TaskRecord.from_item(item)
    assert record.status is Status.PROCESSING
    assert (record.request_body, record.expires_at) == ("", None)


def test_a_status_from_an_item_is_a_status() -> None:
    assert type(TaskRecord.from_item(record_of().to_item() | {"status": "failed"}).status) is Status


def test_completed_and_failed_are_terminal() -> None:
    assert {status for status in Status if status.is_terminal} == {Status.COMPLETED, Status.FAILED}
    assert set(LIVE) == {status for status in Status if not status.is_terminal}


def test_a_failure_has_one_of_these_causes() -> None:
    assert set(ErrorCode) == {
        "upstream_failed",
        "upstream_rejected",
        "deadline",
        "attempts_exhausted",
        "worker_lost",
        "rule_b",
        "dead_letter",
        "expired",
    }


@pytest.mark.parametrize(("expires_at", "expired"), [(None, False), (NOW - 1, True), (NOW, True), (NOW + 0.001, False)])
def test_a_record_expires_at_its_time(expires_at: float | None, expired: bool) -> None:
    assert record_of(expires_at=expires_at).is_expired(NOW) is expired


@pytest.mark.parametrize(
    ("status", "lease_until", "leased"),
    [
        (Status.PROCESSING, NOW + 0.001, True),
        (Status.PROCESSING, NOW, False),
        (Status.PROCESSING, None, False),
        (Status.PENDING, NOW + 1, False),
        (Status.COMPLETED, NOW + 1, False),
    ],
)
def test_a_task_is_leased_while_its_worker_keeps_its_word(
    status: Status, lease_until: float | None, leased: bool
) -> None:
    assert record_of(status=status, lease_until=lease_until).is_leased(NOW) is leased


@pytest.mark.parametrize(
    ("status", "queued_at", "lease_until", "since"),
    [
        (Status.PENDING, 10.0, None, 10.0),
        (Status.PROCESSING, 10.0, 30.0, 30.0),
        (Status.PROCESSING, 40.0, 30.0, 40.0),
        (Status.PROCESSING, 10.0, None, 10.0),
    ],
)
def test_a_task_waits_since_it_was_queued_or_left(
    status: Status, queued_at: float, lease_until: float | None, since: float
) -> None:
    assert record_of(status=status, queued_at=queued_at, lease_until=lease_until).waiting_since() == since
